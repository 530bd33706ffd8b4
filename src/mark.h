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

/*
 * In the clientMetadata of each of its items, beside the caller's own keys;
 * request_status_client_token_idx has the same word.
 */
#define MARK_KEY "accessreq_client_token"

/* A stored row's token; of a table's alias with its dot, or "". */
#define MARK_OF_ROW(alias) alias "client_metadata ->> '" MARK_KEY "'"

/* A body for create with the token in all of its items. */
extern Datum mark_items(Jsonb *request, const char *token);

#endif							/* ACCESSREQ_MARK_H */
