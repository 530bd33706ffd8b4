/*-------------------------------------------------------------------------
 *
 * rowset.c
 *	  Items to rows.
 *
 * Here, and only for what is new or changed, items are parsed.  Their Datums
 * go straight into tuplestores: one statement a table then reads them all (a
 * statement a row costs half as much again).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "item.h"
#include "row.h"
#include "rowset.h"

/*
 * How many children an item has now, by table: tells the surplus ordinals of
 * an item that was stored before.  A tuplestore alone, no table.
 */
static const StoreColumn size_columns[] = {
	{KEY_SERVER, TEXTOID},
	{KEY_ID, TEXTOID},
	{"approval", INT4OID},
	{"phase", INT4OID},
	{"manual_work_item", INT4OID},
};

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
	put_row(rows, &sets[table], store_tables[table].columns, store_tables[table].ncolumns,
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
 * Closed, and older than the job keeps: it is not stored, and where it is, the
 * worker deletes it.
 */
static bool
is_expired(const Store *store, const StatusItem *item)
{
	TimestampTz last = item->modified != ITEM_NO_TIME ? item->modified : item->created;

	return store->page->keep_since != DT_NOBEGIN && last != ITEM_NO_TIME &&
		last < store->page->keep_since && row_is_closed_state(item->state);
}

void
rowset_load(Store *store, Rows *rows, StoreItem **items, int n, bool careful)
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
		if (is_expired(store, &item))
		{
			target->fate = FATE_EXPIRED;
			MemoryContextSwitchTo(oldcxt);
			continue;
		}
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

void
rowset_end(Rows *rows)
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
