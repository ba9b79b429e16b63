/* The enclave's insides. */
#ifndef TTE_ENCLAVE_H
#define TTE_ENCLAVE_H
#include "tee_internal_api.h"
#include "tinytee_enclave.h"

/* In a section of its own, which the image's writer fills in; volatile: it knows better than the compiler what it
 * holds. */
extern volatile tte_layout tte_here;

/* Whether all of that many bytes lie outside of the enclave, in user space. */
int tte_is_outside(uint64_t address, uint64_t bytes);

/* To whom it says whether to go on: nothing that follows is tried before that is known. */
#define TTA_BARRIER() __asm__ volatile("lfence" : : : "memory")

/* ENCLU's leaves, in entry.S. Everything lies in the enclave: targetinfo and the 512 bytes of report are aligned to
 * 512, reportdata to 128, request to 512, key to 16. */
void tte_ereport(const void *targetinfo, const void *reportdata, void *report);
uint64_t tte_egetkey(const void *request, void *key); /* 0, or an SGX error */

/* REPORT of this enclave for a target (NULL: for nobody), with 64 bytes of the caller's; or with the device's public
 * key, as TTE_REPORT says. */
void tte_report(const void *targetinfo, const uint8_t data[TTE_REPORTDATA_BYTES], uint8_t report[TTE_REPORT_BYTES]);
TEE_Result tte_report_identity(const void *targetinfo, uint8_t report[TTE_REPORT_BYTES]);

#endif
