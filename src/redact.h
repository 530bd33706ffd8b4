/*-------------------------------------------------------------------------
 *
 * redact.h
 *	  Whether words of others repeat a secret of ours.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_REDACT_H
#define ACCESSREQ_REDACT_H

#include "postgres.h"

/*
 * Does the text repeat 8 bytes in a row of the secret, from anywhere in it (all
 * of a shorter one)?  As they are, percent-encoded, as character references of
 * HTML or with the escapes of JSON, also one in the other.  False for no secret.
 */
extern bool redact_repeats(const char *text, const char *secret);

#endif							/* ACCESSREQ_REDACT_H */
