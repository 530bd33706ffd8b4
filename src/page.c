/*-------------------------------------------------------------------------
 *
 * page.c
 *	  A page's items before anything is compared or stored: ids, hashes,
 *	  duplicates.
 *
 * This runs for every item of every page, the unchanged ones too, and outside
 * of any subtransaction: so nothing is parsed here, and an item that cannot be
 * read is marked instead of raised.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "item.h"
#include "page.h"
#include "row.h"

/*
 * Longest id we take.  The tenant's have 32 or 36 characters; a key of a
 * btree has room for 2,704 bytes, and an id that does not fit could not even
 * be quarantined under its name.
 */
#define MAX_ID_LENGTH 1024

/* SQLSTATE of an item that is no acceptable JSON, or has no id. */
#define UNDECODABLE_SQLSTATE "22032"	/* invalid_json_text */

void
page_condemn(StoreItem *item, const char *sqlstate, const char *error)
{
	item->fate = FATE_BAD;
	item->sqlstate = sqlstate;
	item->error = error;
}

/* Id and hash of an item, or why it has none. */
static void
read_item(StoreItem *item, const JsonSpan *span)
{
	item->span = span;
	item->hash = (int64) hash_bytes_extended((const unsigned char *) span->start,
											 (int) span->len,
											 ITEM_DECODER_VERSION);
	if (json_has_id(span) && span->id_len <= MAX_ID_LENGTH)
		item->id = row_text_or_none(span->id, span->id_len);

	if (span->problem != NULL)
		page_condemn(item, UNDECODABLE_SQLSTATE, span->problem);
	else if (span->id == NULL || span->id_len == 0)
		page_condemn(item, UNDECODABLE_SQLSTATE, "item has no " ITEM_ID_KEY);
	else if (span->id_len > MAX_ID_LENGTH)
		page_condemn(item, UNDECODABLE_SQLSTATE, ITEM_ID_KEY " is too long");
	else if (item->id == (Datum) 0)
		page_condemn(item, "22P05", /* untranslatable_character */
				ITEM_ID_KEY " has no equivalent in the server's encoding");
}

static int
compare_ids(const JsonSpan *a, const JsonSpan *b)
{
	int			order = memcmp(a->id, b->id, Min(a->id_len, b->id_len));

	if (order != 0)
		return order;
	return (a->id_len > b->id_len) - (a->id_len < b->id_len);
}

/* By id, and of two versions of one item the later in the page first. */
static int
compare_items(const void *pa, const void *pb)
{
	const StoreItem *a = *(StoreItem *const *) pa;
	const StoreItem *b = *(StoreItem *const *) pb;
	int			order = compare_ids(a->span, b->span);

	return order != 0 ? order : (a < b) - (a > b);
}

bool
page_has_id(const StoreItem *item)
{
	return item->id != (Datum) 0;
}

/*
 * Of two versions of an item in a page the later one counts.  Pages mostly
 * come sorted by id, which shows that there are none.
 */
static void
drop_duplicates(Store *store)
{
	StoreItem **sorted = palloc(sizeof(StoreItem *) * Max(store->nitems, 1));
	bool		ascending = true;
	int			n = 0;

	for (int i = 0; i < store->nitems; i++)
	{
		if (!page_has_id(&store->items[i]))
			continue;
		if (n > 0 && compare_ids(sorted[n - 1]->span, store->items[i].span) >= 0)
			ascending = false;
		sorted[n++] = &store->items[i];
	}
	if (ascending)
		return;
	qsort(sorted, n, sizeof(StoreItem *), compare_items);
	for (int i = 1; i < n; i++)
		if (compare_ids(sorted[i - 1]->span, sorted[i]->span) == 0)
			sorted[i]->fate = FATE_SUPERSEDED;
}

void
page_read_items(Store *store)
{
	const StorePage *page = store->page;

	store->items = palloc0(sizeof(StoreItem) * Max(page->nitems, 1));
	store->nitems = page->nitems;
	for (int i = 0; i < page->nitems; i++)
		read_item(&store->items[i], &page->items[i]);
	drop_duplicates(store);
}

bool
page_is_candidate(const StoreItem *item)
{
	return item->fate != FATE_BAD && item->fate != FATE_SUPERSEDED;
}

bool
page_is_stored(const StoreItem *item)
{
	return item->fate == FATE_NEW || item->fate == FATE_CHANGED ||
		item->fate == FATE_UNCHANGED;
}

Datum
page_ids(const Store *store, bool (*wanted) (const StoreItem *item), int *n)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(store->nitems, 1));

	*n = 0;
	for (int i = 0; i < store->nitems; i++)
		if (wanted(&store->items[i]))
			ids[(*n)++] = store->items[i].id;
	return PointerGetDatum(construct_array(ids, *n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}
