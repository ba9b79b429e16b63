/* The feeder as a server, for Python on the same device over pipes, or on another machine over a serial line; see
 * tinytee_wire.h. */
#ifndef TTF_AGENT_H
#define TTF_AGENT_H

/* Serves until TTF_OFF (returns 0) or the stream's end (returns 1). */
int ttf_serve(int in, int out);

#endif
