/* What OP-TEE's development kit asks of a trusted application. */
#ifndef USER_TA_HEADER_DEFINES_H
#define USER_TA_HEADER_DEFINES_H
#include "tinytee_ta.h"

#define TA_UUID TTA_UUID
#define TA_FLAGS 0
#define TA_STACK_SIZE (32 * 1024)
#define TA_DATA_SIZE TINYTEE_HEAP_BYTES
#define TA_VERSION "1.0"
#define TA_DESCRIPTION "tinytee: runs sealed networks"

#endif
