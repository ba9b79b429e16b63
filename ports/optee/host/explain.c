/* What goes wrong with OP-TEE; see feeder.h. */
#include "feeder.h"

/* Of the trusted side: GlobalPlatform's TEE Internal Core API, and what libteec's header does not name. */
#define ERROR_CORRUPT_OBJECT 0xF0100001
#define ERROR_CORRUPT_OBJECT_2 0xF0100002
#define ERROR_STORAGE_NOT_AVAILABLE 0xF0100003
#define ERROR_STORAGE_NOT_AVAILABLE_2 0xF0100004
#define ERROR_STORAGE_NO_SPACE 0xFFFF3041

const char *ttf_absence(void) { return "there is no OP-TEE: /dev/tee0 is missing, or this user may not open it"; }

const char *ttf_explain(TEEC_Result result) {
  switch (result) {
    case TEEC_ERROR_ITEM_NOT_FOUND:
      return "the trusted application is not installed: put it into /lib/optee_armtz, and see that tee-supplicant runs";
    case TEEC_ERROR_SECURITY:
      return "the trusted application is signed with a key that this OP-TEE does not know";
    case TEEC_ERROR_OUT_OF_MEMORY:
      return "OP-TEE has not enough secure memory left for the trusted application's heap: build it with a smaller "
             "HEAP";
    case TEEC_ERROR_TARGET_DEAD:
      return "the trusted application has panicked";
    case TEEC_ERROR_COMMUNICATION:
      return "OP-TEE does not answer: is tee-supplicant running?";
    case TEEC_ERROR_ACCESS_DENIED:
      return "this user may not use /dev/tee0";
    case TEEC_ERROR_BUSY:
      return "OP-TEE is busy";
    case TEEC_ERROR_BAD_PARAMETERS:
      return "the trusted application refuses a call's parameters";
    case TEEC_ERROR_BAD_STATE:
      return "the trusted application wants something else than it was given";
    case TEEC_ERROR_SHORT_BUFFER:
      return "the trusted application wants more room";
    case ERROR_STORAGE_NOT_AVAILABLE:
    case ERROR_STORAGE_NOT_AVAILABLE_2:
    case ERROR_STORAGE_NO_SPACE:
      return "OP-TEE's secure storage is not to be had: see that tee-supplicant runs and may write its folder";
    case ERROR_CORRUPT_OBJECT:
    case ERROR_CORRUPT_OBJECT_2:
      return "the device's identity in OP-TEE's secure storage is damaged: remove tee-supplicant's folder, and "
             "provision"
             " the device again";
    case TEEC_ERROR_NOT_SUPPORTED:
      return "the trusted application does not know this call: it is of another version";
    default:
      return "OP-TEE refuses a call";
  }
}
