/* What EGETKEY is asked with: Intel SDM, volume 3D, "KEYREQUEST". For the enclave, and for the processor's emulation.
 */
#ifndef SGX_KEYS_H
#define SGX_KEYS_H
#include <stdint.h>

enum { SGX_REPORT_KEY = 3, SGX_SEAL_KEY = 4, SGX_POLICY_MRENCLAVE = 1, SGX_POLICY_MRSIGNER = 2, SGX_KEY_BYTES = 16 };

typedef struct sgx_key_request {
  uint16_t name, policy, isv_svn, reserved;
  uint8_t cpu_svn[16];
  uint64_t attribute_mask[2];
  uint8_t key_id[32];
  uint32_t misc_mask;
  uint8_t rest[512 - 76];
} sgx_key_request;

_Static_assert(sizeof(sgx_key_request) == 512, "as the processor reads it");

#endif
