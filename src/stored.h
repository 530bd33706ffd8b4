/*-------------------------------------------------------------------------
 *
 * stored.h
 *	  Which rows are stored, as a pull needs to know it, and marking those
 *	  that are missing.
 *
 * All of it runs in the current transaction, with SPI connected, and enters
 * the writer by itself.  Ids are UTF-8; where the server's encoding is another
 * one they are converted, and what cannot be is left out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_STORED_H
#define ACCESSREQ_STORED_H

#include "idset.h"
#include "nodes/pg_list.h"
#include "pull.h"

/* Add the keys of the rows in a range that are not marked missing. */
extern void stored_range(const char *server, const PullRange *range, IdSet *ids);

/* Add the keys of the open rows. */
extern void stored_open(const char *server, IdSet *ids);

/* Add the keys of the items of access requests; *found: requests that have any. */
extern void stored_items_of(const char *server, const char *const *requests, int n,
							IdSet *ids, IdSet *found);

/* A row that a create of ours has made; texts are UTF-8. */
typedef struct StoredMarked
{
	const char *token;			/* see mark.h */
	const char *item_id;		/* account_activity_item_id */
	const char *request_id;		/* or NULL */
	const char *state;			/* likewise */
} StoredMarked;

/* Those that have one of these tokens, marked missing or not: a List, palloc'd. */
extern List *stored_marked(const char *server, const char *const *tokens, int n);

/* A scan begins: it has no candidates yet. */
extern void stored_forget_candidates(const char *server);

/* These rows were not returned; or were after all. */
extern void stored_add_candidates(const char *server, int64 run_id,
								  const char *const *ids, int n);
extern void stored_drop_candidates(const char *server, const char *const *ids, int n);

/* How much would be marked; palloc'd in the current context. */
extern PullMissing stored_candidates(const char *server);

/* Mark the candidates that are left, and forget them; returns how many. */
extern int64 stored_mark_missing(const char *server);

/*
 * Delete closed items that are older than "before", with their children,
 * history and quarantine: some "most" at a time.  Returns how many.
 */
extern int64 stored_expire(const char *server, TimestampTz before, int most);

#endif							/* ACCESSREQ_STORED_H */
