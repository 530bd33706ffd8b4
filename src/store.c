/*-------------------------------------------------------------------------
 *
 * store.c
 *	  The only writer of the synced tables: a page of items in, a count of
 *	  new and changed rows out.
 *
 * Most of what a pull brings is what is stored already, so a page is first
 * hashed (page.c) and compared with the stored hashes (lookup.c); only what is
 * new or changed is parsed (rowset.c) and written (statement.c).
 *
 * A page is tried as a whole, in a subtransaction.  Where an item makes that
 * fail by its own fault the page is halved until the culprits are found; they
 * go to quarantined_item (quarantine.c), and the rest is stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "lookup.h"
#include "page.h"
#include "quarantine.h"
#include "rowset.h"
#include "statement.h"
#include "store.h"
#include "writer.h"

/* A page's context: 250 ids and hashes fit in a block. */
#define PAGE_BLOCK_SIZE (32 * 1024)

/* An item's context: most items need no second block. */
#define ITEM_BLOCK_SIZE (32 * 1024)

/*
 * Is an attempt running?  A trigger on a synced table that stores a page, by
 * refresh(), would pull the statement from under the one that fired it.
 */
static bool attempting = false;


/* ----------------------------------------------------------------
 *		Locks
 * ----------------------------------------------------------------
 */

static LOCKTAG
server_lock(Oid serverid, uint16 subid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ForeignServerRelationId, serverid, subid);
	return tag;
}

/* False where it is held by another and "wait" is not wanted. */
bool
store_lock_pull(Oid serverid, bool wait)
{
	LOCKTAG		tag = server_lock(serverid, STORE_LOCK_PULL);

	return LockAcquire(&tag, ExclusiveLock, true, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
store_unlock_pull(Oid serverid)
{
	LOCKTAG		tag = server_lock(serverid, STORE_LOCK_PULL);

	(void) LockRelease(&tag, ExclusiveLock, true);
}

void
store_lock_page(Oid serverid)
{
	LOCKTAG		tag = server_lock(serverid, STORE_LOCK_PAGE);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

bool
store_lock_server(Oid serverid)
{
	LOCKTAG		tag = server_lock(serverid, STORE_LOCK_PULL);

	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	store_lock_page(serverid);
	return true;
}

/*
 * Everything below relies on nobody else writing this server's rows, so this
 * is checked in production too: a top-level abort takes session locks away
 * without a word.
 */
static void
check_locks(const StorePage *page)
{
	LOCKTAG		page_tag = server_lock(page->serverid, STORE_LOCK_PAGE);
	LOCKTAG		pull_tag = server_lock(page->serverid, STORE_LOCK_PULL);

	if (!compat_lock_held_by_me(&page_tag, ExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg_internal("page lock of server \"%s\" is not held",
								 page->server)));
	if (page->in_pull && !compat_lock_held_by_me(&pull_tag, ExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg_internal("pull lock of server \"%s\" is not held",
								 page->server)));
}


/* ----------------------------------------------------------------
 *		Attempts
 * ----------------------------------------------------------------
 */

static bool
has_returned(const StoreItem *item)
{
	return item->returned;
}

/* What a page does besides. */
static void
write_rest(Store *store)
{
	statement_for_ids(store,
					  "UPDATE accessreq.request_status SET missing_since = NULL"
					  " WHERE server = $1 AND account_activity_item_id = ANY ($2)",
					  has_returned);
	quarantine_write(store);
	BENCH_PART(BENCH_REST);
}

/* Write these items, and with "rest" what the page does besides. */
static void
write_items(Store *store, StoreItem **items, int n, bool careful, bool rest)
{
	Rows		rows = {0};
	WriterState writer;

	SPI_connect();
	rows.cxt = CurrentMemoryContext;
	writer_enter(&writer);
	BENCH_PART(BENCH_OTHER);
	rowset_load(store, &rows, items, n, careful);
	statement_write(store, &rows);
	if (rest)
		write_rest(store);
	rowset_end(&rows);
	writer_leave(&writer);
	SPI_finish();
}

static int
current_trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/*
 * Called for each message while it is being made: the one place where it can
 * be seen whether it comes from within a trigger.  For the error that ends an
 * attempt it is called last.
 */
static void
note_trigger(void *arg)
{
	Store	   *store = (Store *) arg;

	store->in_trigger = current_trigger_depth() > store->trigger_depth;
}

/*
 * Write these items in a subtransaction.  Returns NULL, or the error that is
 * an item's fault, in the page's context; with store->decoding set it is that
 * item's.  Other errors are raised again.
 */
static ErrorData *
attempt(Store *store, StoreItem **items, int n, bool careful, bool rest)
{
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorContextCallback callback = {
		.callback = note_trigger, .arg = store
	};
	ErrorData  *volatile error = NULL;

	if (attempting)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot store access request statuses from a trigger on their tables")));
	store->decoding = NULL;
	store->in_trigger = false;
	store->trigger_depth = current_trigger_depth();
	BeginInternalSubTransaction(NULL);
	attempting = true;
	PG_TRY();
	{
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		write_items(store, items, n, careful, rest);
		error_context_stack = callback.previous;
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		attempting = false;
		MemoryContextSwitchTo(store->cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	attempting = false;
	MemoryContextSwitchTo(store->cxt);
	CurrentResourceOwner = oldowner;

	if (error != NULL && !quarantine_is_items_fault(store, error))
		ReThrowError(error);
	return error;
}

/* Move an item to the front of the array. */
static void
move_to_front(StoreItem **items, int n, const StoreItem *item)
{
	for (int i = 0; i < n; i++)
		if (items[i] == item)
		{
			StoreItem  *first = items[0];

			items[0] = items[i];
			items[i] = first;
			return;
		}
}

/*
 * Write what can be written of these items and condemn the others, each by an
 * attempt in which it was alone.  These attempts are careful: children that
 * somebody left when he deleted their row are in the way of plain inserts, and
 * are nobody's fault.
 */
static void
write_pieces(Store *store, StoreItem **items, int n)
{
	while (n > 0)
	{
		ErrorData  *error = attempt(store, items, n, true, false);

		if (error == NULL)
			return;
		if (n > 1 && store->decoding == NULL)
		{
			write_pieces(store, items, n / 2);
			items += n / 2;
			n -= n / 2;
			continue;
		}
		if (store->decoding != NULL)
			move_to_front(items, n, store->decoding);
		quarantine_condemn(items[0], error);
		items++;
		n--;
	}
}

/* The same for the whole page, with all that it does besides, or nothing. */
static void
write_in_pieces(Store *store)
{
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *error;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		write_pieces(store, store->work, store->nwork);
		error = attempt(store, NULL, 0, true, true);
		if (error != NULL)
			ReThrowError(error);	/* quarantine itself refuses */
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(store->cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		CurrentResourceOwner = oldowner;
		ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(store->cxt);
	CurrentResourceOwner = oldowner;
}

/*
 * Write the page: as a whole where that works, which is nearly always, without
 * the items that cannot be decoded, and in pieces where the tables refuse one.
 */
static void
write_page(Store *store)
{
	for (;;)
	{
		ErrorData  *error = attempt(store, store->work, store->nwork, false, true);

		if (error == NULL)
			return;
		if (store->decoding == NULL)
			break;
		move_to_front(store->work, store->nwork, store->decoding);
		quarantine_condemn(store->work[0], error);
		store->work++;
		store->nwork--;
	}
	write_in_pieces(store);
}


/* ----------------------------------------------------------------
 *		A page
 * ----------------------------------------------------------------
 */

/* Collect what is to be written; false where the page changes nothing. */
static bool
plan_work(Store *store)
{
	bool		any = false;

	store->work = palloc(sizeof(StoreItem *) * Max(store->nitems, 1));
	for (int i = 0; i < store->nitems; i++)
	{
		StoreItem  *item = &store->items[i];

		if (item->fate == FATE_NEW || item->fate == FATE_CHANGED)
			store->work[store->nwork++] = item;
		else if (item->fate == FATE_BAD || item->returned)
			any = true;
	}
	return any || store->nwork > 0 || (store->has_quarantine && store->nitems > 0);
}

static void
add_counts(const Store *store, StoreCounts *counts)
{
	counts->seen += store->nitems;
	for (int i = 0; i < store->nitems; i++)
	{
		const StoreItem *item = &store->items[i];

		counts->added += item->fate == FATE_NEW;
		counts->changed += item->fate == FATE_CHANGED;
		counts->quarantined += item->fate == FATE_BAD;
		counts->replaced += item->span->replaced;
	}
}

/* In the current context, which is the caller's. */
static StoreOutcome *
make_outcomes(const Store *store, int *noutcomes)
{
	StoreOutcome *outcomes = palloc0(sizeof(StoreOutcome) * Max(store->nitems, 1));
	int			n = 0;

	for (int i = 0; i < store->nitems; i++)
	{
		const StoreItem *item = &store->items[i];
		const char *new_state = page_is_stored(item) && item->fate != FATE_UNCHANGED
			? item->new_state : item->old_state;
		StoreOutcome *outcome = &outcomes[n];

		if (item->fate == FATE_BAD || item->fate == FATE_SUPERSEDED)
			continue;
		n++;
		outcome->account_activity_item_id = TextDatumGetCString(item->id);
		if (item->access_request_id != NULL)
			outcome->access_request_id = pstrdup(item->access_request_id);
		if (item->old_state != NULL)
			outcome->old_state = pstrdup(item->old_state);
		if (new_state != NULL)
			outcome->new_state = pstrdup(new_state);
	}
	*noutcomes = n;
	return outcomes;
}

void
store_page(const StorePage *page, StoreCounts *counts,
		   StoreOutcome **outcomes, int *noutcomes)
{
	MemoryContext caller_cxt = CurrentMemoryContext;
	Store		store = {0};

	check_locks(page);
	store.page = page;
	store.want_outcomes = outcomes != NULL;
	store.cxt = AllocSetContextCreate(caller_cxt, "accessreq page",
									  0, PAGE_BLOCK_SIZE, ALLOCSET_DEFAULT_MAXSIZE);
	store.item_cxt = AllocSetContextCreate(store.cxt, "accessreq item",
										   ITEM_BLOCK_SIZE, ITEM_BLOCK_SIZE,
										   ALLOCSET_DEFAULT_MAXSIZE);
	MemoryContextSwitchTo(store.cxt);
	store.server = CStringGetTextDatum(page->server);
	BENCH_PART(BENCH_OTHER);
	page_read_items(&store);
	BENCH_PART(BENCH_HASH);
	lookup_items(&store);
	BENCH_PART(BENCH_LOOKUP);
	if (plan_work(&store))
		write_page(&store);
	BENCH_PART(BENCH_OTHER);

	MemoryContextSwitchTo(caller_cxt);
	add_counts(&store, counts);
	if (outcomes != NULL)
		*outcomes = make_outcomes(&store, noutcomes);
	MemoryContextDelete(store.cxt);
}

void
store_finish_scan(const char *server, TimestampTz since)
{
	quarantine_sweep(server, since);
}
