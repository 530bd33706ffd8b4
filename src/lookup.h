/*-------------------------------------------------------------------------
 *
 * lookup.h
 *	  What of a page is stored already.  Internal to store.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LOOKUP_H
#define ACCESSREQ_LOOKUP_H

#include "page.h"

/*
 * Find out which items are new, changed or the same, and whether the server
 * has any quarantined ones: sets fate, "returned", and with want_outcomes
 * old_state and access_request_id of each candidate, and has_quarantine.
 * Allocates in the current context, which must be the page's; leaves
 * request_status locked as for a write.
 *
 * The snapshot is the latest, whatever the transaction's is: who held the
 * page lock before us has committed since.
 */
extern void lookup_items(Store *store);

#endif							/* ACCESSREQ_LOOKUP_H */
