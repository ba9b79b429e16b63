/* The device's identity in SGX: an X25519 key pair that follows from the key which this processor derives for this very
 * enclave (EGETKEY, SEAL_KEY, policy MRENCLAVE). It is made anew whenever it is asked for and stored nowhere; another
 * enclave, another processor, and this one after an update of its microcode (CPUSVN) have other pairs. */
#include "identity.h"

#include <bearssl.h>
#include <string.h>

#include "enclave.h"
#include "hpke.h"
#include "sgx_keys.h"

/* Of REPORT, what is read: Intel SDM, volume 3D. */
enum { REPORT_ISV_SVN = 258 };

void tte_report(const void *targetinfo, const uint8_t data[TTE_REPORTDATA_BYTES], uint8_t report[TTE_REPORT_BYTES]) {
  _Alignas(512) uint8_t target[TTE_TARGETINFO_BYTES] = {0}, made[512];
  _Alignas(128) uint8_t given[TTE_REPORTDATA_BYTES];
  if (targetinfo) memcpy(target, targetinfo, sizeof target);
  memcpy(given, data, sizeof given);
  tte_ereport(target, given, made);
  memcpy(report, made, TTE_REPORT_BYTES);
}

/* DEBUG and all other attributes count: an enclave that can be looked into has another key. */
static int derive(uint8_t private_key[TTO_KEY_BYTES]) {
  static const uint8_t nothing[TTE_REPORTDATA_BYTES];
  static const char label[] = "tinytee identity";
  const tto_part part = {label, sizeof label - 1};
  _Alignas(512) sgx_key_request request;
  _Alignas(16) uint8_t key[SGX_KEY_BYTES];
  uint8_t report[TTE_REPORT_BYTES];
  tte_report(NULL, nothing, report);
  memset(&request, 0, sizeof request);
  request.name = SGX_SEAL_KEY;
  request.policy = SGX_POLICY_MRENCLAVE;
  memcpy(&request.isv_svn, report + REPORT_ISV_SVN, sizeof request.isv_svn);
  memcpy(request.cpu_svn, report, sizeof request.cpu_svn);
  memset(request.attribute_mask, 0xff, sizeof request.attribute_mask);
  request.misc_mask = 0xffffffff;
  const int failed = tte_egetkey(&request, key) != 0 || tto_hmac(key, sizeof key, &part, 1, private_key) != 0;
  tto_wipe(key, sizeof key);
  return failed ? -1 : 0;
}

TEE_Result tta_identity_open(TEE_ObjectHandle *pair, uint8_t public_key[TTO_KEY_BYTES]) {
  uint8_t private_key[TTO_KEY_BYTES];
  *pair = TEE_HANDLE_NULL;
  if (derive(private_key)) return TEE_ERROR_GENERIC;
  const size_t made = br_ec_c25519_m31.mulgen(public_key, private_key, sizeof private_key, BR_EC_curve25519);
  tto_wipe(private_key, sizeof private_key);
  return made == TTO_KEY_BYTES ? TEE_SUCCESS : TEE_ERROR_GENERIC;
}

int tta_identity_unseal(TEE_ObjectHandle pair, const uint8_t public_key[TTO_KEY_BYTES], const void *info,
                        size_t info_bytes, const uint8_t enc[TTO_KEY_BYTES], const uint8_t *sealed, size_t bytes,
                        uint8_t *plain) {
  uint8_t private_key[TTO_KEY_BYTES], dh[TTO_KEY_BYTES];
  const tto_hpke message = {dh, enc, public_key, info, info_bytes};
  (void)pair;
  memset(plain, 0, bytes);
  memcpy(dh, enc, sizeof dh);
  int failed = derive(private_key);
  if (!failed && !br_ec_c25519_m31.mul(dh, sizeof dh, private_key, sizeof private_key, BR_EC_curve25519)) failed = -1;
  tto_wipe(private_key, sizeof private_key);
  if (!failed) failed = tto_hpke_open(&message, sealed, bytes, plain);
  tto_wipe(dh, sizeof dh);
  return failed;
}

TEE_Result tte_report_identity(const void *targetinfo, uint8_t report[TTE_REPORT_BYTES]) {
  uint8_t data[TTE_REPORTDATA_BYTES] = {0};
  TEE_ObjectHandle pair;
  const TEE_Result result = tta_identity_open(&pair, data);
  memcpy(data + TTO_KEY_BYTES, TTE_REPORT_TEXT, sizeof TTE_REPORT_TEXT - 1);
  if (result == TEE_SUCCESS) tte_report(targetinfo, data, report);
  return result;
}
