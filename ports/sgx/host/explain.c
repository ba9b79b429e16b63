/* What goes wrong with SGX; see feeder.h. */
#include "feeder.h"
#include "teec.h"

const char *ttf_absence(void) {
  return "no enclave is named: set TINYTEE_ENCLAVE to an image that 'tinytee sgx build' made";
}

const char *ttf_explain(TEEC_Result result) {
  switch (result) {
    case TEEC_ERROR_ITEM_NOT_FOUND:
    case TEEC_ERROR_TARGET_DEAD:
      return ttx_last_failure();
    case TEEC_ERROR_OUT_OF_MEMORY:
      return "there is not enough memory";
    case TEEC_ERROR_BAD_PARAMETERS:
      return "the enclave refuses a call's parameters";
    case TEEC_ERROR_BAD_STATE:
      return "the enclave wants something else than it was given";
    case TEEC_ERROR_SHORT_BUFFER:
      return "the enclave wants more room";
    case TEEC_ERROR_NOT_SUPPORTED:
      return "the enclave does not know this call: it is of another version";
    default:
      return "the enclave refuses a call";
  }
}
