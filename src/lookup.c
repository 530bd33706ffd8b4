/*-------------------------------------------------------------------------
 *
 * lookup.c
 *	  What of a page is stored already.
 *
 * Most of what a pull brings is, so this is what a page mostly costs: one
 * descent of the key's index an item, from C, where the table is as the
 * extension made it.  Where it is partitioned, hides rows from its owner or
 * lacks the index, SQL finds the rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "lookup.h"
#include "statement.h"
#include "tables.h"
#include "writer.h"

/* What the lookup reads of a stored row. */
typedef struct StoredRow
{
	int64		hash;
	TimestampTz changed_at;
	bool		missing;
	TimestampTz missing_since;
} StoredRow;

/*
 * An answer that is older than what is stored says nothing: neither about the
 * content nor, below, about the row being there.
 */
static void
decide(Store *store, StoreItem *item, const StoredRow *row)
{
	TimestampTz sent_at = store->page->sent_at;

	if (sent_at < row->changed_at)
		item->fate = FATE_STALE;
	else if (item->hash != row->hash)
		item->fate = FATE_CHANGED;
	else
	{
		item->fate = FATE_UNCHANGED;
		item->returned = row->missing && row->missing_since <= sent_at;
	}
}

/*
 * Attribute number of a column, by name, because a user may have added some.
 * Its type is checked, because what the scan finds is taken for such a Datum.
 */
static AttrNumber
require_column(Relation rel, const char *name, Oid type)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);
	Oid			actual;

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						name, RelationGetRelationName(rel))));
	actual = TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid;
	if (!IsBinaryCoercible(actual, type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table \"%s\" is of type %s, not %s",
						name, RelationGetRelationName(rel),
						format_type_be(actual), format_type_be(type))));
	return attnum;
}

/* KEY_SERVER and KEY_ID. */
#define NUM_LOOKUP_KEYS 2

/*
 * Can this index be scanned by the first "nkeys" of the lookup's columns, or,
 * where it is to be unique, is it a unique one on exactly these?
 */
static bool
index_fits(Relation index, const AttrNumber *key, int nkeys, bool unique)
{
	Form_pg_index form = index->rd_index;

	if (index->rd_rel->relam != BTREE_AM_OID ||
		!form->indisvalid || !form->indislive || form->indcheckxmin ||
		form->indnkeyatts < nkeys ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	if (unique && (!form->indisunique || !form->indimmediate ||
				   form->indnkeyatts != nkeys))
		return false;
	for (int i = 0; i < nkeys; i++)
		if (form->indkey.values[i] != key[i] ||
			index->rd_opfamily[i] != TEXT_BTREE_FAM_OID ||
			index->rd_opcintype[i] != TEXTOID ||	/* the family has name too */
			!OidIsValid(index->rd_indcollation[i]))
			return false;
	return true;
}

/*
 * Open an index of a table for a scan from C.  NULL where there is none that
 * fits, or the table is not plain enough: rows may be elsewhere, or hidden
 * from its owner, and then only SQL finds what is to be found.
 */
static Relation
open_lookup_index(Relation rel, int nkeys, bool unique)
{
	AttrNumber	key[NUM_LOOKUP_KEYS];
	Relation	found = NULL;
	List	   *indexes;
	ListCell   *lc;

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID ||
		rel->rd_rel->relhassubclass ||
		(rel->rd_rel->relrowsecurity && rel->rd_rel->relforcerowsecurity))
		return NULL;

	key[0] = require_column(rel, KEY_SERVER, TEXTOID);
	key[1] = require_column(rel, KEY_ID, TEXTOID);
	indexes = RelationGetIndexList(rel);
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index_fits(index, key, nkeys, unique))
		{
			found = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

/* Start a scan of such an index; the keys after the server are the caller's. */
static IndexScanDesc
begin_lookup(Store *store, Relation rel, Relation index, Snapshot snapshot,
			 ScanKey keys, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber,
							   InvalidOid, index->rd_indcollation[i],
							   F_TEXTEQ, store->server);
	return compat_index_beginscan(rel, index, snapshot, nkeys);
}

/* Attribute numbers of what the lookup reads. */
typedef struct StoredAttnums
{
	AttrNumber	hash;
	AttrNumber	changed_at;
	AttrNumber	missing_since;
	AttrNumber	state;
	AttrNumber	access_request_id;
} StoredAttnums;

static void
find_attnums(Relation rel, StoredAttnums *attnums)
{
	attnums->hash = require_column(rel, "content_hash", INT8OID);
	attnums->changed_at = require_column(rel, "changed_at", TIMESTAMPTZOID);
	attnums->missing_since = require_column(rel, "missing_since", TIMESTAMPTZOID);
	attnums->state = require_column(rel, "state", TEXTOID);
	attnums->access_request_id = require_column(rel, "access_request_id", TEXTOID);
}

static char *
slot_cstring(TupleTableSlot *slot, AttrNumber attnum)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attnum, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static void
read_stored_row(Store *store, StoreItem *item, TupleTableSlot *slot,
				const StoredAttnums *attnums)
{
	StoredRow	row;
	bool		isnull;

	row.hash = DatumGetInt64(slot_getattr(slot, attnums->hash, &isnull));
	row.changed_at = DatumGetTimestampTz(slot_getattr(slot, attnums->changed_at, &isnull));
	row.missing_since = DatumGetTimestampTz(slot_getattr(slot, attnums->missing_since,
														 &isnull));
	row.missing = !isnull;
	decide(store, item, &row);
	if (store->want_outcomes)
	{
		item->old_state = slot_cstring(slot, attnums->state);
		item->access_request_id = slot_cstring(slot, attnums->access_request_id);
	}
}

/*
 * By a scan of the key's index from here, without SPI: it is cheaper, and no
 * plan made when the table was empty can turn it into a scan of the server.
 */
static void
lookup_by_index(Store *store, Relation rel, Relation index, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	StoredAttnums attnums;
	ScanKeyData keys[NUM_LOOKUP_KEYS];
	IndexScanDesc scan;

	find_attnums(rel, &attnums);
	scan = begin_lookup(store, rel, index, snapshot, keys, NUM_LOOKUP_KEYS);
	for (int i = 0; i < store->nitems; i++)
	{
		StoreItem  *item = &store->items[i];

		if (!page_is_candidate(item))
			continue;
		keys[1].sk_argument = item->id;
		index_rescan(scan, keys, NUM_LOOKUP_KEYS, NULL, 0);
		if (index_getnext_slot(scan, ForwardScanDirection, slot))
			read_stored_row(store, item, slot, &attnums);
		else
			item->fate = FATE_NEW;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

static StoreItem *
find_candidate(Store *store, text *id)
{
	for (int i = 0; i < store->nitems; i++)
	{
		StoreItem  *item = &store->items[i];
		text	   *other;

		if (!page_is_candidate(item))
			continue;
		other = DatumGetTextPP(item->id);
		if (VARSIZE_ANY_EXHDR(other) == VARSIZE_ANY_EXHDR(id) &&
			memcmp(VARDATA_ANY(other), VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id)) == 0)
			return item;
	}
	return NULL;
}

/* Hand the rows of the SPI lookup over. */
static void
read_looked_up(Store *store)
{
	TupleDesc	tupdesc = SPI_tuptable->tupdesc;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(tupdesc, &TTSOpsHeapTuple);
	const StoredAttnums attnums = {
		.hash = 2, .changed_at = 3, .missing_since = 4, .state = 5,
		.access_request_id = 6
	};

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		StoreItem  *item;
		bool		isnull;

		ExecStoreHeapTuple(SPI_tuptable->vals[i], slot, false);
		item = find_candidate(store,
							  DatumGetTextPP(slot_getattr(slot, 1, &isnull)));
		if (item != NULL)
		{
			MemoryContext spi_cxt = MemoryContextSwitchTo(store->cxt);

			read_stored_row(store, item, slot, &attnums);
			MemoryContextSwitchTo(spi_cxt);
		}
	}
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Where the index cannot be scanned from here.  Planned each time, with the
 * values at hand: a plan kept from when the table was empty would filter the
 * whole server for each page.
 */
static void
lookup_by_sql(Store *store, Snapshot snapshot)
{
	Oid			types[] = {TEXTOID, TEXTARRAYOID};
	Datum		values[2];
	SPIPlanPtr	plan;
	WriterState writer;
	int			n;

	values[0] = store->server;
	values[1] = page_ids(store, page_is_candidate, &n);
	for (int i = 0; i < store->nitems; i++)
		if (page_is_candidate(&store->items[i]))
			store->items[i].fate = FATE_NEW;

	SPI_connect();
	writer_enter(&writer);
	plan = SPI_prepare_cursor("SELECT account_activity_item_id::text, content_hash::bigint,"
							  " changed_at::timestamptz, missing_since::timestamptz,"
							  " state::text, access_request_id::text"
							  " FROM accessreq.request_status"
							  " WHERE server = $1 AND account_activity_item_id = ANY ($2)",
							  lengthof(types), types, CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		statement_check(SPI_result);
	statement_check(SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot,
										 true, true, 0));
	read_looked_up(store);
	writer_leave(&writer);
	SPI_finish();
}

/*
 * Has this server any quarantined item?  Asked once a page, so that a pull
 * without any pays one descent of an index.  Where that cannot be had the
 * answer is yes.
 */
static bool
probe_quarantine(Store *store, Snapshot snapshot)
{
	Relation	rel = table_open(writer_table(QUARANTINE_TABLE), AccessShareLock);
	Relation	index = open_lookup_index(rel, 1, false);
	bool		found = true;

	if (index != NULL)
	{
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		ScanKeyData key;
		IndexScanDesc scan = begin_lookup(store, rel, index, snapshot, &key, 1);

		index_rescan(scan, &key, 1, NULL, 0);
		found = index_getnext_slot(scan, ForwardScanDirection, slot);
		index_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
		index_close(index, AccessShareLock);
	}
	table_close(rel, NoLock);
	return found;
}

void
lookup_items(Store *store)
{
	/* what a write would take, so that no lock is upgraded later */
	Relation	rel = table_open(writer_table(store_tables[TABLE_STATUS].name),
								 RowExclusiveLock);
	Relation	index = open_lookup_index(rel, NUM_LOOKUP_KEYS, true);
	Snapshot	snapshot;

	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	if (index != NULL)
	{
		lookup_by_index(store, rel, index, snapshot);
		index_close(index, AccessShareLock);
	}
	else
		lookup_by_sql(store, snapshot);
	store->has_quarantine = probe_quarantine(store, snapshot);
	PopActiveSnapshot();
	table_close(rel, NoLock);
}
