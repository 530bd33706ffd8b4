/*-------------------------------------------------------------------------
 *
 * store.h
 *	  The only writer of the synced tables: a page of items in, a count of
 *	  new and changed rows out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_STORE_H
#define ACCESSREQ_STORE_H

#include "datatype/timestamp.h"
#include "json.h"

typedef struct StorePage
{
	const char *server;			/* in the server's encoding */
	Oid			serverid;		/* whose page lock is held */
	int64		run_id;			/* 0: not part of a run */
	bool		in_pull;		/* the pull's lock must be held too */
	bool		keep_raw;
	TimestampTz keep_since;		/* closed items that are older are left out;
								 * DT_NOBEGIN: none is */
	TimestampTz sent_at;		/* when the request that brought it was sent */
	JsonSpan   *items;			/* of json_cut_page() with ITEM_ID_KEY */
	int			nitems;
} StorePage;

typedef struct StoreCounts
{
	int64		seen;
	int64		added;			/* rows that are new */
	int64		changed;
	int64		quarantined;
	int64		replaced;		/* characters, see JsonSpan.replaced */
} StoreCounts;

/*
 * One item's state before and after, for refresh(); texts palloc'd.  An item
 * that went to quarantine has none.
 */
typedef struct StoreOutcome
{
	char	   *account_activity_item_id;
	char	   *access_request_id;
	char	   *old_state;		/* NULL: was not stored */
	char	   *new_state;
} StoreOutcome;

/*
 * Locks.  A pull of a server holds a session lock, one process at a time; a
 * page, of a pull or of refresh(), takes a second one to the end of the
 * transaction.  DROP SERVER waits for neither.
 */
/*
 * objsubid of the two.  DROP SERVER takes 0, on purpose not ours: dropping a
 * server must not wait for a pull.
 */
#define STORE_LOCK_PULL 1
#define STORE_LOCK_PAGE 2

extern bool store_lock_pull(Oid serverid, bool wait);
extern void store_unlock_pull(Oid serverid);
extern void store_lock_page(Oid serverid);

/*
 * Both, to the end of the transaction: no pull is under way, and none begins.
 * False where one is.
 */
extern bool store_lock_server(Oid serverid);

/*
 * Store a page in the current transaction, in a subtransaction of its own.
 * Connects to SPI by itself.  Adds to *counts.  Where "outcomes" is not NULL
 * it gets an array of the page's items, *noutcomes long, in the caller's memory
 * context.  An item that cannot be stored for its own fault goes to
 * quarantined_item; any other error (deadlock, lock timeout, full disk,
 * cancel) is raised with nothing of the page stored.
 */
extern void store_page(const StorePage *page, StoreCounts *counts,
					   StoreOutcome **outcomes, int *noutcomes);

/*
 * A full scan that began at "since" is complete: quarantined items without an
 * id that it did not meet are gone.  SPI is connected.
 */
extern void store_finish_scan(const char *server, TimestampTz since);

#endif							/* ACCESSREQ_STORE_H */
