/*-------------------------------------------------------------------------
 *
 * store.c
 *	  The only writer of the synced tables: a page of items in, a count of
 *	  new and changed rows out.
 *
 * Most of what a pull brings is what is stored already, so a page is first
 * hashed and compared with the stored hashes; only what is new or changed is
 * parsed.  That goes, as Datums, into tuplestores that one statement a table
 * reads (the measurements behind it: a statement a row costs half as much
 * again, and ON CONFLICT locks and logs every row).
 *
 * A page is tried as a whole, in a subtransaction.  Where an item makes that
 * fail by its own fault the page is halved until the culprits are found; they
 * go to quarantined_item, and the rest is stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "item.h"
#include "row.h"
#include "store.h"
#include "writer.h"

/* test/bench measures the parts of a page; elsewhere this is nothing. */
#ifdef STORE_BENCH
#include "store_bench.h"
#else
#define BENCH_PART(part) ((void) 0)
#endif

/*
 * objsubid of our two locks on a server.  DROP SERVER takes 0, on purpose not
 * ours: dropping a server must not wait for a pull.
 */
#define LOCK_SUBID_PULL 1
#define LOCK_SUBID_PAGE 2

/*
 * Longest id we take.  The tenant's have 32 or 36 characters; a key of a
 * btree has room for 2,704 bytes, and an id that does not fit could not even
 * be quarantined under its name.
 */
#define MAX_ID_LENGTH 1024

/* Longest error text that is kept of an item in quarantine, in bytes. */
#define MAX_ERROR_LENGTH 2000

/* SQLSTATE of an item that is no acceptable JSON, or has no id. */
#define UNDECODABLE_SQLSTATE "22032"	/* invalid_json_text */

/* A page's context: 250 ids and hashes fit in a block. */
#define PAGE_BLOCK_SIZE (32 * 1024)

/* An item's context: most items need no second block. */
#define ITEM_BLOCK_SIZE (32 * 1024)

/*
 * The tables.  The columns are those that a tuplestore of new or changed rows
 * has; the times, which are the same in all rows of a page, are a parameter of
 * the statements.
 */
typedef struct StoreColumn
{
	const char *name;
	Oid			type;
} StoreColumn;

typedef struct StoreTable
{
	const char *name;
	const StoreColumn *columns;
	int			ncolumns;
	int			nkeys;			/* columns of the key, which lead */
} StoreTable;

typedef enum TableId
{
	TABLE_STATUS,
	TABLE_APPROVAL,				/* the first of the children */
	TABLE_PHASE,
	TABLE_WORK_ITEM
} TableId;

#define NUM_TABLES (TABLE_WORK_ITEM + 1)

static const StoreColumn status_columns[] = {
	{"server", TEXTOID},
	{"account_activity_item_id", TEXTOID},
	{"access_request_id", TEXTOID},
	{"item_id", TEXTOID},
	{"item_name", TEXTOID},
	{"item_type", TEXTOID},
	{"request_type", TEXTOID},
	{"state", TEXTOID},
	{"requester_id", TEXTOID},
	{"requester_name", TEXTOID},
	{"requested_for_id", TEXTOID},
	{"requested_for_name", TEXTOID},
	{"requester_comment", TEXTOID},
	{"created", TIMESTAMPTZOID},
	{"modified", TIMESTAMPTZOID},
	{"start_date", TIMESTAMPTZOID},
	{"remove_date", TIMESTAMPTZOID},
	{"cancelable", BOOLOID},
	{"cancel_comment", TEXTOID},
	{"cancelled_at", TIMESTAMPTZOID},
	{"cancelled_by_id", TEXTOID},
	{"cancelled_by_name", TEXTOID},
	{"sod_state", TEXTOID},
	{"sod_policies", TEXTARRAYOID},
	{"description", TEXTOID},
	{"privilege_level", TEXTOID},
	{"source_names", TEXTARRAYOID},
	{"error_text", TEXTOID},
	{"client_metadata", JSONBOID},
	{"raw", JSONOID},
	{"content_hash", INT8OID},
};

static const StoreColumn approval_columns[] = {
	{"server", TEXTOID},
	{"account_activity_item_id", TEXTOID},
	{"ordinal", INT4OID},
	{"approval_id", TEXTOID},
	{"status", TEXTOID},
	{"scheme", TEXTOID},
	{"forwarded", BOOLOID},
	{"original_owner_type", TEXTOID},
	{"original_owner_id", TEXTOID},
	{"original_owner_name", TEXTOID},
	{"current_owner_type", TEXTOID},
	{"current_owner_id", TEXTOID},
	{"current_owner_name", TEXTOID},
	{"reviewed_by_id", TEXTOID},
	{"reviewed_by_name", TEXTOID},
	{"comment", TEXTOID},
	{"modified", TIMESTAMPTZOID},
	{"remove_date", TIMESTAMPTZOID},
	{"timeout_config", JSONBOID},
	{"error_text", TEXTOID},
};

static const StoreColumn phase_columns[] = {
	{"server", TEXTOID},
	{"account_activity_item_id", TEXTOID},
	{"ordinal", INT4OID},
	{"name", TEXTOID},
	{"state", TEXTOID},
	{"result", TEXTOID},
	{"started", TIMESTAMPTZOID},
	{"finished", TIMESTAMPTZOID},
	{"phase_reference", TEXTOID},
};

static const StoreColumn work_item_columns[] = {
	{"server", TEXTOID},
	{"account_activity_item_id", TEXTOID},
	{"ordinal", INT4OID},
	{"status", TEXTOID},
	{"forwarded", BOOLOID},
	{"original_owner_type", TEXTOID},
	{"original_owner_id", TEXTOID},
	{"original_owner_name", TEXTOID},
	{"current_owner_type", TEXTOID},
	{"current_owner_id", TEXTOID},
	{"current_owner_name", TEXTOID},
	{"modified", TIMESTAMPTZOID},
};

static const StoreTable tables[NUM_TABLES] = {
	[TABLE_STATUS] = {"request_status", status_columns, lengthof(status_columns), 2},
	[TABLE_APPROVAL] = {"approval", approval_columns, lengthof(approval_columns), 3},
	[TABLE_PHASE] = {"phase", phase_columns, lengthof(phase_columns), 3},
	[TABLE_WORK_ITEM] = {"manual_work_item", work_item_columns,
	lengthof(work_item_columns), 3},
};

#define QUARANTINE_TABLE "quarantined_item"

/* Where the columns are that are filled here. */
#define COLUMN_SERVER 0
#define COLUMN_ID 1
#define STATUS_RAW (COLUMN_ID + ROW_API_COLUMNS)
#define STATUS_HASH (STATUS_RAW + 1)
#define CHILD_ORDINAL (COLUMN_ID + 1)
#define CHILD_FIRST (CHILD_ORDINAL + 1)

#define MAX_COLUMNS lengthof(status_columns)

/*
 * How many children an item has now, by table: tells the surplus ordinals of
 * an item that was stored before.  A tuplestore alone, no table.
 */
static const StoreColumn size_columns[] = {
	{"server", TEXTOID},
	{"account_activity_item_id", TEXTOID},
	{"approval", INT4OID},
	{"phase", INT4OID},
	{"manual_work_item", INT4OID},
};

#define SIZES_NAME "sizes"

StaticAssertDecl(lengthof(status_columns) == STATUS_HASH + 1,
				 "request_status: row.h and store.c differ");
StaticAssertDecl(lengthof(approval_columns) == CHILD_FIRST + ROW_APPROVAL_COLUMNS,
				 "approval: row.h and store.c differ");
StaticAssertDecl(lengthof(phase_columns) == CHILD_FIRST + ROW_PHASE_COLUMNS,
				 "phase: row.h and store.c differ");
StaticAssertDecl(lengthof(work_item_columns) == CHILD_FIRST + ROW_WORK_ITEM_COLUMNS,
				 "manual_work_item: row.h and store.c differ");

/* What is to become of an item of the page. */
typedef enum Fate
{
	FATE_NEW,
	FATE_CHANGED,
	FATE_UNCHANGED,
	FATE_STALE,					/* stored by a request sent later */
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

/* Rows that a statement reads by a name. */
typedef struct RowSet
{
	TupleDesc	tupdesc;
	Tuplestorestate *rows;		/* NULL while there is none */
	int64		n;
} RowSet;

/* What one attempt writes. */
typedef struct Rows
{
	MemoryContext cxt;			/* SPI's: it reads them there */
	RowSet		added[NUM_TABLES];	/* to insert */
	RowSet		changed[NUM_TABLES];	/* to update, children to upsert */
	RowSet		sizes;			/* of items whose children are upserted */
} Rows;

/*
 * Statements kept for the life of the process: planning the seven of a page
 * with one changed item anew would cost more than comparing its 250 items.
 */
typedef enum StatementKind
{
	STATEMENT_INSERT,
	STATEMENT_UPDATE,
	STATEMENT_UPSERT,
	STATEMENT_DELETE_SURPLUS
} StatementKind;

#define NUM_STATEMENTS (STATEMENT_DELETE_SURPLUS + 1)

typedef struct Statement
{
	SPIPlanPtr	plan;			/* NULL: not made yet */
	BlockNumber size;			/* of the table, when it was planned */
} Statement;

/* A table's size where it is not that of one file. */
#define UNKNOWN_SIZE InvalidBlockNumber

static Statement statements[NUM_TABLES][NUM_STATEMENTS];

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
	LOCKTAG		tag = server_lock(serverid, LOCK_SUBID_PULL);

	return LockAcquire(&tag, ExclusiveLock, true, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
store_unlock_pull(Oid serverid)
{
	LOCKTAG		tag = server_lock(serverid, LOCK_SUBID_PULL);

	(void) LockRelease(&tag, ExclusiveLock, true);
}

void
store_lock_page(Oid serverid)
{
	LOCKTAG		tag = server_lock(serverid, LOCK_SUBID_PAGE);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Everything below relies on nobody else writing this server's rows, so this
 * is checked in production too: a top-level abort takes session locks away
 * without a word.
 */
static void
check_locks(const StorePage *page)
{
	LOCKTAG		page_tag = server_lock(page->serverid, LOCK_SUBID_PAGE);
	LOCKTAG		pull_tag = server_lock(page->serverid, LOCK_SUBID_PULL);

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
 *		Reading the page: ids, hashes, duplicates
 * ----------------------------------------------------------------
 */

/* "error" must outlive the page's context's use: a constant, or in it. */
static void
condemn(StoreItem *item, const char *sqlstate, const char *error)
{
	item->fate = FATE_BAD;
	item->sqlstate = sqlstate;
	item->error = error;
}

/*
 * The id as text in the server's encoding, or 0 where it cannot be converted:
 * that must not raise here, outside of any subtransaction.
 */
static Datum
id_datum(const char *id, int len)
{
	Oid			conversion;
	unsigned char *buf;
	int			encoding = GetDatabaseEncoding();

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return PointerGetDatum(cstring_to_text_with_len(id, len));

	conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(conversion))
		return (Datum) 0;
	buf = palloc(len * MAX_CONVERSION_GROWTH + 1);
	if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding,
									  (unsigned char *) unconstify(char *, id), len,
									  buf, len * MAX_CONVERSION_GROWTH + 1,
									  true) != len)
		return (Datum) 0;
	return CStringGetTextDatum((char *) buf);
}

/* Id and hash of an item, or why it has none. */
static void
read_item(StoreItem *item, const JsonSpan *span)
{
	item->span = span;
	item->hash = (int64) hash_bytes_extended((const unsigned char *) span->start,
											 (int) span->len,
											 ITEM_DECODER_VERSION);
	if (span->id != NULL && span->id_len > 0 && span->id_len <= MAX_ID_LENGTH)
		item->id = id_datum(span->id, (int) span->id_len);

	if (span->problem != NULL)
		condemn(item, UNDECODABLE_SQLSTATE, span->problem);
	else if (span->id == NULL || span->id_len == 0)
		condemn(item, UNDECODABLE_SQLSTATE, "item has no " ITEM_ID_KEY);
	else if (span->id_len > MAX_ID_LENGTH)
		condemn(item, UNDECODABLE_SQLSTATE, ITEM_ID_KEY " is too long");
	else if (item->id == (Datum) 0)
		condemn(item, "22P05",	/* untranslatable_character */
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

static bool
has_id(const StoreItem *item)
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
		if (!has_id(&store->items[i]))
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

static void
read_items(Store *store)
{
	const StorePage *page = store->page;

	store->items = palloc0(sizeof(StoreItem) * Max(page->nitems, 1));
	store->nitems = page->nitems;
	for (int i = 0; i < page->nitems; i++)
		read_item(&store->items[i], &page->items[i]);
	drop_duplicates(store);
}


/* ----------------------------------------------------------------
 *		Looking the items up
 * ----------------------------------------------------------------
 */

/* What the lookup reads of a stored row. */
typedef struct StoredRow
{
	int64		hash;
	TimestampTz changed_at;
	bool		missing;
	TimestampTz missing_since;
} StoredRow;

/* May an item be looked up, that is, has it a key and can it be stored? */
static bool
is_candidate(const StoreItem *item)
{
	return item->fate != FATE_BAD && item->fate != FATE_SUPERSEDED;
}

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

/* The columns that every key leads with, both text. */
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

	for (int i = 0; i < NUM_LOOKUP_KEYS; i++)
		key[i] = get_attnum(RelationGetRelid(rel), status_columns[i].name);
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

/* Attribute numbers of what the lookup reads: a user may have added columns. */
typedef struct StoredAttnums
{
	AttrNumber	hash;
	AttrNumber	changed_at;
	AttrNumber	missing_since;
	AttrNumber	state;
	AttrNumber	access_request_id;
} StoredAttnums;

static AttrNumber
require_attnum(Relation rel, const char *name)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						name, RelationGetRelationName(rel))));
	return attnum;
}

static void
find_attnums(Relation rel, StoredAttnums *attnums)
{
	attnums->hash = require_attnum(rel, "content_hash");
	attnums->changed_at = require_attnum(rel, "changed_at");
	attnums->missing_since = require_attnum(rel, "missing_since");
	attnums->state = require_attnum(rel, "state");
	attnums->access_request_id = require_attnum(rel, "access_request_id");
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

		if (!is_candidate(item))
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

/* Ids of the items for which "wanted" holds, as a text[] Datum. */
static Datum
id_array(Store *store, bool (*wanted) (const StoreItem *item), int *n)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(store->nitems, 1));

	*n = 0;
	for (int i = 0; i < store->nitems; i++)
		if (wanted(&store->items[i]))
			ids[(*n)++] = store->items[i].id;
	return PointerGetDatum(construct_array(ids, *n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static int
check_spi(int code)
{
	if (code < 0)
		elog(ERROR, "SPI failed: %s", SPI_result_code_string(code));
	return code;
}

static StoreItem *
find_candidate(Store *store, text *id)
{
	for (int i = 0; i < store->nitems; i++)
	{
		StoreItem  *item = &store->items[i];
		text	   *other;

		if (!is_candidate(item))
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
lookup_by_sql(Store *store)
{
	Oid			types[] = {TEXTOID, TEXTARRAYOID};
	Datum		values[2];
	WriterState writer;
	int			n;

	values[0] = store->server;
	values[1] = id_array(store, is_candidate, &n);
	for (int i = 0; i < store->nitems; i++)
		if (is_candidate(&store->items[i]))
			store->items[i].fate = FATE_NEW;

	SPI_connect();
	writer_enter(&writer);
	check_spi(SPI_execute_with_args("SELECT account_activity_item_id, content_hash, changed_at,"
									" missing_since, state, access_request_id"
									" FROM accessreq.request_status"
									" WHERE server = $1 AND account_activity_item_id = ANY ($2)",
									lengthof(types), types, values, NULL, false, 0));
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

/*
 * Find out what is new, changed or the same.
 *
 * The snapshot is the latest, whatever the transaction's is: who held the
 * page lock before us has committed since.
 */
static void
lookup_items(Store *store)
{
	/* what a write would take, so that no lock is upgraded later */
	Relation	rel = table_open(writer_table(tables[TABLE_STATUS].name),
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
		lookup_by_sql(store);
	store->has_quarantine = probe_quarantine(store, snapshot);
	PopActiveSnapshot();
	table_close(rel, NoLock);
}


/* ----------------------------------------------------------------
 *		Items to rows
 * ----------------------------------------------------------------
 */

static TupleDesc
make_tupdesc(const StoreColumn *columns, int ncolumns)
{
	TupleDesc	tupdesc = CreateTemplateTupleDesc(ncolumns);

	for (int i = 0; i < ncolumns; i++)
		TupleDescInitEntry(tupdesc, i + 1, columns[i].name, columns[i].type, -1, 0);
	return tupdesc;
}

static void
put_row(Rows *rows, RowSet *set, const StoreColumn *columns, int ncolumns,
		Datum *values, bool *nulls)
{
	if (set->rows == NULL)
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(rows->cxt);

		set->tupdesc = make_tupdesc(columns, ncolumns);
		set->rows = tuplestore_begin_heap(false, false, work_mem);
		MemoryContextSwitchTo(oldcxt);
	}
	tuplestore_putvalues(set->rows, set->tupdesc, values, nulls);
	set->n++;
}

static void
put_table_row(Rows *rows, RowSet *sets, TableId table, Datum *values, bool *nulls)
{
	put_row(rows, &sets[table], tables[table].columns, tables[table].ncolumns,
			values, nulls);
}

static void
put_status(Store *store, Rows *rows, RowSet *sets, const StoreItem *target,
		   const StatusItem *item)
{
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];

	values[COLUMN_SERVER] = store->server;
	nulls[COLUMN_SERVER] = false;
	row_from_item(item, &values[COLUMN_ID], &nulls[COLUMN_ID]);
	nulls[STATUS_RAW] = !store->page->keep_raw;
	if (store->page->keep_raw)
		values[STATUS_RAW] = row_json(target->span->start, target->span->len);
	nulls[STATUS_HASH] = false;
	values[STATUS_HASH] = Int64GetDatum(target->hash);
	put_table_row(rows, sets, TABLE_STATUS, values, nulls);
}

static void
put_sizes(Store *store, Rows *rows, Datum id, const StatusItem *item)
{
	Datum		values[] = {
		store->server, id, Int32GetDatum(item->napprovals), Int32GetDatum(item->nphases),
		Int32GetDatum(item->nwork_items)
	};
	bool		nulls[lengthof(values)] = {false};

	StaticAssertStmt(lengthof(values) == lengthof(size_columns), "sizes: columns differ");
	put_row(rows, &rows->sizes, size_columns, lengthof(size_columns), values, nulls);
}

static void
put_children(Store *store, Rows *rows, RowSet *sets, Datum id, const StatusItem *item)
{
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];

	values[COLUMN_SERVER] = store->server;
	values[COLUMN_ID] = id;
	memset(nulls, false, CHILD_FIRST);
	for (int i = 0; i < item->napprovals; i++)
	{
		values[CHILD_ORDINAL] = Int32GetDatum(i + 1);
		row_from_approval(&item->approvals[i], &values[CHILD_FIRST], &nulls[CHILD_FIRST]);
		put_table_row(rows, sets, TABLE_APPROVAL, values, nulls);
	}
	for (int i = 0; i < item->nphases; i++)
	{
		values[CHILD_ORDINAL] = Int32GetDatum(i + 1);
		row_from_phase(&item->phases[i], &values[CHILD_FIRST], &nulls[CHILD_FIRST]);
		put_table_row(rows, sets, TABLE_PHASE, values, nulls);
	}
	for (int i = 0; i < item->nwork_items; i++)
	{
		values[CHILD_ORDINAL] = Int32GetDatum(i + 1);
		row_from_work_item(&item->work_items[i], &values[CHILD_FIRST], &nulls[CHILD_FIRST]);
		put_table_row(rows, sets, TABLE_WORK_ITEM, values, nulls);
	}
}

static char *
copy_text(MemoryContext cxt, const char *utf8)
{
	MemoryContext oldcxt = MemoryContextSwitchTo(cxt);
	char	   *copy = utf8 == NULL ? NULL : row_cstring(utf8);

	MemoryContextSwitchTo(oldcxt);
	return copy;
}

/* Decode an item; its problems are raised, as those of its Datums are. */
static void
decode_item(Store *store, StoreItem *target, StatusItem *item)
{
	const JsonSpan *span = target->span;
	const char *problem = NULL;

	if (!item_decode(span->start, span->len, store->item_cxt, item, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_JSON_TEXT),
				 errmsg("%s", problem)));

	/* an item with the key twice: the row would go under another id */
	if (strlen(item->account_activity_item_id) != span->id_len ||
		memcmp(item->account_activity_item_id, span->id, span->id_len) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_JSON_TEXT),
				 errmsg("item has more than one %s", ITEM_ID_KEY)));
}

/*
 * Make rows of the items.  Those of a new item are added, unless "careful":
 * then all are treated as changed where children are concerned, because
 * somebody may have deleted a row and left its children.
 */
static void
load_items(Store *store, Rows *rows, StoreItem **items, int n, bool careful)
{
	for (int i = 0; i < n; i++)
	{
		StoreItem  *target = items[i];
		RowSet	   *sets = target->fate == FATE_NEW ? rows->added : rows->changed;
		MemoryContext oldcxt;
		StatusItem item;

		CHECK_FOR_INTERRUPTS();
		store->decoding = target;
		MemoryContextReset(store->item_cxt);
		oldcxt = MemoryContextSwitchTo(store->item_cxt);
		decode_item(store, target, &item);
		BENCH_PART(BENCH_DECODE);
		put_status(store, rows, sets, target, &item);
		if (careful)
			sets = rows->changed;
		put_children(store, rows, sets, target->id, &item);
		if (sets == rows->changed)
			put_sizes(store, rows, target->id, &item);
		BENCH_PART(BENCH_DATUMS);
		if (store->want_outcomes)
		{
			target->access_request_id = copy_text(store->cxt, item.access_request_id);
			target->new_state = copy_text(store->cxt, item.state);
		}
		MemoryContextSwitchTo(oldcxt);
	}
	store->decoding = NULL;
	MemoryContextReset(store->item_cxt);
}


/* ----------------------------------------------------------------
 *		Statements
 * ----------------------------------------------------------------
 */

/* The one parameter of all kept statements. */
#define PARAM_SENT_AT "$1"

static const Oid statement_types[] = {TIMESTAMPTZOID};

/*
 * How kept statements find the stored rows.  The server is compared as a
 * column, not with a parameter: by a constant alone the planner might fetch
 * all rows of the server and join those.
 */
#define SAME_ITEM "t.server = r.server" \
	" AND t.account_activity_item_id = r.account_activity_item_id"

/* "prefix.column" for the columns from "first" on, with commas. */
static void
append_columns(StringInfo sql, const StoreTable *table, int first, const char *prefix)
{
	for (int i = first; i < table->ncolumns; i++)
		appendStringInfo(sql, "%s%s%s", i > first ? ", " : "", prefix,
						 table->columns[i].name);
}

/* "column = source.column" for what is no key. */
static void
append_assignments(StringInfo sql, const StoreTable *table, const char *source)
{
	for (int i = table->nkeys; i < table->ncolumns; i++)
		appendStringInfo(sql, "%s%s = %s.%s", i > table->nkeys ? ", " : "",
						 table->columns[i].name, source, table->columns[i].name);
}

static void
build_insert(StringInfo sql, TableId id)
{
	const StoreTable *table = &tables[id];

	appendStringInfo(sql, "INSERT INTO accessreq.%s (", table->name);
	append_columns(sql, table, 0, "");
	if (id == TABLE_STATUS)
		appendStringInfoString(sql, ", first_seen_at, changed_at");
	appendStringInfoString(sql, ") SELECT ");
	append_columns(sql, table, 0, "r.");
	if (id == TABLE_STATUS)
		appendStringInfoString(sql, ", " PARAM_SENT_AT ", " PARAM_SENT_AT);
	appendStringInfo(sql, " FROM added_%s r", table->name);
}

static void
build_update(StringInfo sql, TableId id)
{
	const StoreTable *table = &tables[id];

	appendStringInfo(sql, "UPDATE accessreq.%s t SET ", table->name);
	append_assignments(sql, table, "r");
	/* a mark that was set after the request was sent stays */
	appendStringInfo(sql, ", changed_at = " PARAM_SENT_AT
					 ", missing_since = CASE WHEN t.missing_since > " PARAM_SENT_AT
					 " THEN t.missing_since END"
					 " FROM changed_%s r WHERE " SAME_ITEM,
					 table->name);
}

/* Children of a changed item mostly stay as they are: only others are written. */
static void
build_upsert(StringInfo sql, TableId id)
{
	const StoreTable *table = &tables[id];

	appendStringInfo(sql, "INSERT INTO accessreq.%s (", table->name);
	append_columns(sql, table, 0, "");
	appendStringInfoString(sql, ") SELECT ");
	append_columns(sql, table, 0, "r.");
	appendStringInfo(sql, " FROM changed_%s r LEFT JOIN accessreq.%s t"
					 " ON " SAME_ITEM " AND t.ordinal = r.ordinal"
					 " WHERE t.server IS NULL OR (",
					 table->name, table->name);
	append_columns(sql, table, table->nkeys, "t.");
	appendStringInfoString(sql, ") IS DISTINCT FROM (");
	append_columns(sql, table, table->nkeys, "r.");
	appendStringInfoString(sql, ") ON CONFLICT (server, account_activity_item_id, ordinal)"
						   " DO UPDATE SET ");
	append_assignments(sql, table, "excluded");
}

static void
build_delete_surplus(StringInfo sql, TableId id)
{
	appendStringInfo(sql, "DELETE FROM accessreq.%s t USING " SIZES_NAME " r"
					 " WHERE " SAME_ITEM " AND t.ordinal > r.%s",
					 tables[id].name, tables[id].name);
}

static const char *
statement_sql(TableId table, StatementKind kind)
{
	StringInfoData sql;

	initStringInfo(&sql);
	switch (kind)
	{
		case STATEMENT_INSERT:
			build_insert(&sql, table);
			break;
		case STATEMENT_UPDATE:
			build_update(&sql, table);
			break;
		case STATEMENT_UPSERT:
			build_upsert(&sql, table);
			break;
		case STATEMENT_DELETE_SURPLUS:
			build_delete_surplus(&sql, table);
			break;
	}
	return sql.data;
}

/*
 * All our joins are of at most a few hundred rows with a key, for which a
 * nested loop over the key's index is right whatever the number of rows of the
 * page that happens to be planned for; so nothing else is let in.  (JIT,
 * because the penalties would make it look worthwhile.)
 */
static void
restrict_planner(void)
{
	static const struct
	{
		const char *name;
		const char *value;
	}			settings[] = {
		{"enable_seqscan", "off"},
		{"enable_bitmapscan", "off"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"enable_memoize", "off"},
		{"enable_nestloop", "on"},
		{"enable_indexscan", "on"},
		{"jit", "off"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i].name, settings[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Size of a table in blocks; UNKNOWN_SIZE where its rows are elsewhere.
 */
static BlockNumber
table_size(TableId id)
{
	Relation	rel = table_open(writer_table(tables[id].name), RowExclusiveLock);
	BlockNumber size = UNKNOWN_SIZE;

	if (rel->rd_rel->relkind == RELKIND_RELATION && !rel->rd_rel->relhassubclass)
		size = RelationGetNumberOfBlocks(rel);
	table_close(rel, NoLock);
	return size;
}

/*
 * Is a plan that was made at one size still right at another?  The trap is a
 * plan of a pull's first page, when reading all of an empty table was cheap.
 * Replanning at each growth by half costs two dozen plans on the way from
 * nothing to 100,000 items.  A plan without a join is right for ever.
 */
static bool
is_outgrown(StatementKind kind, BlockNumber planned, BlockNumber size)
{
	if (kind == STATEMENT_INSERT)
		return false;
	return size == UNKNOWN_SIZE || size > planned + planned / 2;
}

/*
 * A kept statement, planned.  The settings hold for the planning alone: the
 * triggers of users, which run with the statement, are none of their business.
 */
static SPIPlanPtr
prepare(TableId table, StatementKind kind)
{
	Statement  *statement = &statements[table][kind];
	BlockNumber size = table_size(table);
	SPIPlanPtr	plan;
	int			guc_level;

	if (statement->plan != NULL)
	{
		if (SPI_plan_is_valid(statement->plan) && !is_outgrown(kind, statement->size, size))
			return statement->plan;
		SPI_freeplan(statement->plan);
		statement->plan = NULL;
	}

	guc_level = NewGUCNestLevel();
	restrict_planner();
	plan = SPI_prepare_cursor(statement_sql(table, kind), lengthof(statement_types),
							  (Oid *) statement_types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		check_spi(SPI_result);
	check_spi(SPI_keepplan(plan));
	statement->plan = plan;
	statement->size = size;
	ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), CurrentResourceOwner);
	AtEOXact_GUC(false, guc_level);
	return plan;
}

/* Run a kept statement and return how many rows it wrote. */
static uint64
run_statement(Store *store, TableId table, StatementKind kind)
{
	Datum		values[lengthof(statement_types)];

	values[0] = TimestampTzGetDatum(store->page->sent_at);
	check_spi(SPI_execute_plan(prepare(table, kind), values, NULL, false, 0));
	return SPI_processed;
}

/* Let statements see the rows under a name. */
static void
register_rows(Rows *rows, RowSet *set, const char *prefix, const char *name)
{
	MemoryContext oldcxt = MemoryContextSwitchTo(rows->cxt);
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = psprintf("%s%s", prefix, name);
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = set->tupdesc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = set->n;
	enr->reldata = set->rows;
	check_spi(SPI_register_relation(enr));
	MemoryContextSwitchTo(oldcxt);
}

static void
register_all_rows(Rows *rows)
{
	for (TableId i = 0; i < NUM_TABLES; i++)
	{
		if (rows->added[i].n > 0)
			register_rows(rows, &rows->added[i], "added_", tables[i].name);
		if (rows->changed[i].n > 0)
			register_rows(rows, &rows->changed[i], "changed_", tables[i].name);
	}
	if (rows->sizes.n > 0)
		register_rows(rows, &rows->sizes, "", SIZES_NAME);
}

static void
end_rows(Rows *rows)
{
	for (TableId i = 0; i < NUM_TABLES; i++)
	{
		if (rows->added[i].rows != NULL)
			tuplestore_end(rows->added[i].rows);
		if (rows->changed[i].rows != NULL)
			tuplestore_end(rows->changed[i].rows);
	}
	if (rows->sizes.rows != NULL)
		tuplestore_end(rows->sizes.rows);
}

/* Can a user's trigger keep rows from being updated? */
static bool
has_before_update_trigger(TableId id)
{
	Relation	rel = table_open(writer_table(tables[id].name), NoLock);
	bool		result = rel->trigdesc != NULL && rel->trigdesc->trig_update_before_row;

	table_close(rel, NoLock);
	return result;
}

/*
 * Update the changed rows.  One that the lookup saw and the statement does not
 * was deleted by somebody in between, or came after the snapshot of a
 * REPEATABLE READ transaction; its children must not be stored without it.
 */
static void
update_status(Store *store, const RowSet *changed)
{
	uint64		updated = run_statement(store, TABLE_STATUS, STATEMENT_UPDATE);

	if (updated != (uint64) changed->n && !has_before_update_trigger(TABLE_STATUS))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not store statuses of server \"%s\" due to concurrent changes",
						store->page->server),
				 errhint("Try again.")));
}

static void
write_rows(Store *store, Rows *rows)
{
	register_all_rows(rows);
	for (TableId i = 0; i < NUM_TABLES; i++)
	{
		if (rows->added[i].n > 0)
			(void) run_statement(store, i, STATEMENT_INSERT);
		if (rows->changed[i].n > 0)
		{
			if (i == TABLE_STATUS)
				update_status(store, &rows->changed[i]);
			else
				(void) run_statement(store, i, STATEMENT_UPSERT);
		}
		if (rows->sizes.n > 0 && i >= TABLE_APPROVAL)
			(void) run_statement(store, i, STATEMENT_DELETE_SURPLUS);
		BENCH_PART(BENCH_TABLE + i);
	}
}


/* ----------------------------------------------------------------
 *		What a page does besides: marks, quarantine
 * ----------------------------------------------------------------
 */

static bool
has_returned(const StoreItem *item)
{
	return item->returned;
}

/* Is what the page has of it what is stored now? */
static bool
is_stored(const StoreItem *item)
{
	return item->fate == FATE_NEW || item->fate == FATE_CHANGED ||
		item->fate == FATE_UNCHANGED;
}

/* These statements are rare, and so planned with the values at hand. */
static void
run_for_ids(Store *store, const char *sql, bool (*wanted) (const StoreItem *item))
{
	Oid			types[] = {TEXTOID, TEXTARRAYOID};
	Datum		values[lengthof(types)];
	int			n;

	values[0] = store->server;
	values[1] = id_array(store, wanted, &n);
	if (n > 0)
		check_spi(SPI_execute_with_args(sql, lengthof(types), types, values, NULL,
										false, 0));
}

static void
write_quarantined(Store *store, const StoreItem *item)
{
	Oid			types[] = {
		TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, BYTEAOID
	};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1] = "        ";

	values[0] = store->server;
	values[1] = has_id(item) ? item->id : CStringGetTextDatum("");
	values[2] = Int64GetDatum(item->hash);
	values[3] = Int64GetDatum(store->page->run_id);
	if (store->page->run_id == 0)
		nulls[3] = 'n';
	values[4] = TimestampTzGetDatum(store->page->sent_at);
	values[5] = CStringGetTextDatum(item->sqlstate);
	values[6] = CStringGetTextDatum(item->error);
	values[7] = PointerGetDatum(cstring_to_text_with_len(item->span->start,
														 (int) item->span->len));
	check_spi(SPI_execute_with_args("INSERT INTO accessreq.quarantined_item AS q"
									" (server, account_activity_item_id, item_hash, run_id,"
									" first_seen_at, last_seen_at, error_code, error, item)"
									" VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8)"
									" ON CONFLICT (server, account_activity_item_id, item_hash)"
									" DO UPDATE SET run_id = excluded.run_id,"
									" last_seen_at = greatest(q.last_seen_at, excluded.last_seen_at),"
									" attempts = q.attempts + 1,"
									" error_code = excluded.error_code,"
									" error = excluded.error",
									lengthof(types), types, values, nulls, false, 0));
}

/* SPI is connected, and the writer entered. */
static void
write_rest(Store *store)
{
	run_for_ids(store,
				"UPDATE accessreq.request_status SET missing_since = NULL"
				" WHERE server = $1 AND account_activity_item_id = ANY ($2)",
				has_returned);
	if (store->has_quarantine)
		run_for_ids(store,
					"DELETE FROM accessreq.quarantined_item"
					" WHERE server = $1 AND account_activity_item_id = ANY ($2)",
					is_stored);
	for (int i = 0; i < store->nitems; i++)
		if (store->items[i].fate == FATE_BAD)
			write_quarantined(store, &store->items[i]);
	BENCH_PART(BENCH_REST);
}


/* ----------------------------------------------------------------
 *		Triggers of users
 * ----------------------------------------------------------------
 */

/*
 * A trigger runs as us, the tables' owner, but anybody with the TRIGGER
 * privilege can create one.  So its function must belong to somebody who
 * could become us anyway.
 */
static void
check_trigger(Relation rel, const Trigger *trigger)
{
	HeapTuple	tuple;
	Oid			owner;

	if (trigger->tgisinternal || trigger->tgenabled == TRIGGER_DISABLED)
		return;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(trigger->tgfoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", trigger->tgfoid);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	if (owner == GetUserId() || superuser_arg(owner))
		return;

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for trigger \"%s\" on table \"%s.%s\"",
					trigger->tgname,
					get_namespace_name(RelationGetNamespace(rel)),
					RelationGetRelationName(rel)),
			 errdetail("Its function %s belongs to role \"%s\", which is neither the owner of the synced tables nor a superuser.",
					   format_procedure_qualified(trigger->tgfoid),
					   GetUserNameFromId(owner, true)),
			 errhint("Drop or disable the trigger, or give its function to the owner of the table.")));
}

static void
check_relation_triggers(Oid relid)
{
	/* the lock keeps others from creating one before we are done */
	Relation	rel = table_open(relid, RowExclusiveLock);

	if (rel->trigdesc != NULL)
		for (int i = 0; i < rel->trigdesc->numtriggers; i++)
			check_trigger(rel, &rel->trigdesc->triggers[i]);

	/* partitions and children have triggers of their own */
	if (rel->rd_rel->relhassubclass)
	{
		List	   *children = find_inheritance_children(relid, RowExclusiveLock);
		ListCell   *lc;

		foreach(lc, children)
			check_relation_triggers(lfirst_oid(lc));
		list_free(children);
	}
	table_close(rel, NoLock);
}

static void
check_triggers(void)
{
	for (TableId i = 0; i < NUM_TABLES; i++)
		check_relation_triggers(writer_table(tables[i].name));
	check_relation_triggers(writer_table(QUARANTINE_TABLE));
}


/* ----------------------------------------------------------------
 *		Attempts
 * ----------------------------------------------------------------
 */

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
 * Is the error one that the item itself causes?  54000 is an index entry too
 * large for its page: an absurdly long value.
 */
static bool
is_items_fault(const Store *store, const ErrorData *error)
{
	int			sqlstate = error->sqlerrcode;

	/* in an old snapshot we may not see what we collide with */
	if (sqlstate == ERRCODE_UNIQUE_VIOLATION && IsolationUsesXactSnapshot())
		return false;
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION):
		case ERRCODE_TO_CATEGORY(ERRCODE_PLPGSQL_ERROR):
			return true;
		case ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION):
			return store->in_trigger;
		default:
			return sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	}
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
	check_triggers();
	BENCH_PART(BENCH_OTHER);
	load_items(store, &rows, items, n, careful);
	write_rows(store, &rows);
	if (rest)
		write_rest(store);
	end_rows(&rows);
	writer_leave(&writer);
	SPI_finish();
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

	if (error != NULL && !is_items_fault(store, error))
		ReThrowError(error);
	return error;
}

/* A message that quarantined_item takes, whatever it holds. */
static char *
storable_message(const char *message)
{
	char	   *copy;
	int			len;

	if (message == NULL)
		return pstrdup("no message");
	len = strlen(message);
	copy = pnstrdup(message, pg_mbcliplen(message, len, MAX_ERROR_LENGTH));
	if (!pg_verifymbstr(copy, strlen(copy), true))
		for (char *c = copy; *c != '\0'; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return copy;
}

static void
condemn_for(StoreItem *item, const ErrorData *error)
{
	condemn(item, pstrdup(unpack_sql_state(error->sqlerrcode)),
			storable_message(error->message));
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
		condemn_for(items[0], error);
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
		condemn_for(store->work[0], error);
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
		const char *new_state = is_stored(item) && item->fate != FATE_UNCHANGED
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
	read_items(&store);
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
