/* The port's insides, for the session. */
#ifndef TTHI_PORT_H
#define TTHI_PORT_H
#include "tinytee_host.h"

/* A run begins: wakes threads while its first input is prepared. */
void tthi_port_wake(const tth_port *port);

/* Seconds spent in the AEAD hooks. */
double tthi_port_aead_seconds(const tth_port *port);

/* The client's end of the I/O key: seals inputs and opens outputs, apart from the core's own copy of the key. */
TT_MUST_USE int tthi_port_client_key(tth_port *port, uint32_t suite, const uint8_t *key);
TT_MUST_USE int tthi_port_client_seal(tth_port *port, const uint8_t *nonce, const void *plain, size_t bytes,
                                      uint8_t *sealed);
TT_MUST_USE int tthi_port_client_open(tth_port *port, const uint8_t *nonce, const uint8_t *sealed, size_t bytes,
                                      void *plain);

/* Wipes every key, the client's too. */
void tthi_port_forget(tth_port *port);

double tthi_seconds(void);

#endif
