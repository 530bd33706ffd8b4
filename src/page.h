/*-------------------------------------------------------------------------
 *
 * page.h
 *	  A page on its way into the tables: its items, and what is to become of
 *	  each.  Internal to store.c and its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_PAGE_H
#define ACCESSREQ_PAGE_H

#include "store.h"

/* test/bench measures the parts of a page; elsewhere this is nothing. */
#ifdef STORE_BENCH
#include "store_bench.h"
#else
#define BENCH_PART(part) ((void) 0)
#endif

/* What is to become of an item of the page. */
typedef enum Fate
{
	FATE_NEW,
	FATE_CHANGED,
	FATE_UNCHANGED,
	FATE_STALE,					/* stored by a request sent later */
	FATE_EXPIRED,				/* closed for longer than rows are kept */
	FATE_BAD,					/* to quarantine */
	FATE_SUPERSEDED				/* the page has a later version of it */
} Fate;

typedef struct StoreItem
{
	const JsonSpan *span;
	Fate		fate;
	Datum		id;				/* text in the server's encoding; 0 where
								 * there is none */
	int64		hash;
	bool		returned;		/* was marked missing and is not */
	const char *sqlstate;		/* of a bad one */
	const char *error;
	char	   *access_request_id;	/* for outcomes alone */
	char	   *old_state;
	char	   *new_state;
} StoreItem;

/* A page being stored. */
typedef struct Store
{
	const StorePage *page;
	MemoryContext cxt;			/* the page's */
	MemoryContext item_cxt;		/* reset for each item */
	Datum		server;
	bool		want_outcomes;
	bool		has_quarantine; /* of this server, before this page */
	StoreItem  *items;
	int			nitems;
	StoreItem **work;			/* the new and the changed */
	int			nwork;
	StoreItem  *decoding;		/* being made Datums of, or NULL */
	int			trigger_depth;	/* when the attempt began */
	bool		in_trigger;		/* the last message came from a trigger */
} Store;

/*
 * Make store->items of store->page: id and hash of each, those that cannot be
 * read condemned, earlier versions of an item superseded.  Raises nothing that
 * is an item's fault, because no subtransaction runs yet.  What it allocates,
 * in the current context, must live as long as the page.
 */
extern void page_read_items(Store *store);

/*
 * Send an item to quarantine.  "sqlstate" and "error" must outlive the page: a
 * constant, or palloc'd in its context.
 */
extern void page_condemn(StoreItem *item, const char *sqlstate, const char *error);

/* Has it an id, one that a column can hold? */
extern bool page_has_id(const StoreItem *item);

/* May an item be looked up, that is, has it a key and can it be stored? */
extern bool page_is_candidate(const StoreItem *item);

/* Is what the page has of it what is stored now? */
extern bool page_is_stored(const StoreItem *item);

/*
 * Ids of the items for which "wanted" holds, as a text[] Datum palloc'd in the
 * current context; *n is their number.
 */
extern Datum page_ids(const Store *store, bool (*wanted) (const StoreItem *item), int *n);

#endif							/* ACCESSREQ_PAGE_H */
