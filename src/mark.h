/*-------------------------------------------------------------------------
 *
 * mark.h
 *	  The token by which a create is found again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_MARK_H
#define ACCESSREQ_MARK_H

#include "utils/jsonb.h"

/* In the clientMetadata of each of its items, beside the caller's own keys. */
#define MARK_KEY "accessreq_client_token"

/* A body for create with the token in all of its items. */
extern Datum mark_items(Jsonb *request, const char *token);

#endif							/* ACCESSREQ_MARK_H */
