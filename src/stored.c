/*-------------------------------------------------------------------------
 *
 * stored.c
 *	  Which rows are stored, as a pull needs to know it, and marking those
 *	  that are missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mark.h"
#include "mb/pg_wchar.h"
#include "row.h"
#include "sql.h"
#include "stored.h"
#include "statement.h"
#include "tables.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "writer.h"

/* Keys that are read at a time, so that no result is held as a whole. */
#define FETCH_ROWS 1000

/*
 * Ids as a text[].  One that the server's encoding lacks is no row's, and is
 * left out.
 */
static Datum
ids_datum(const char *const *ids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		Datum		id = row_text_or_none(ids[i], strlen(ids[i]));

		if (id != (Datum) 0)
			elements[kept++] = id;
	}
	return PointerGetDatum(construct_array(elements, kept, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* A text of the current row as UTF-8, in SPI's context; NULL for null. */
static const char *
utf8_value(uint64 row, int column, size_t *len)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									  column, &isnull);
	char	   *utf8;

	if (isnull)
		return NULL;
	utf8 = TextDatumGetCString(value);
	utf8 = pg_server_to_any(utf8, strlen(utf8), PG_UTF8);
	*len = strlen(utf8);
	return utf8;
}

/* Add the first column of a query's rows to a set, the second to another. */
static void
collect(const char *sql, SqlArgs *p, IdSet *first, IdSet *second)
{
	WriterState writer;
	Portal		portal;

	writer_enter_to_read(&writer);
	statement_restrict_planner();
	PushActiveSnapshot(GetLatestSnapshot());
	portal = SPI_cursor_open_with_args(NULL, sql, p->n, p->types, p->values, NULL,
									   true, CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			size_t		len;
			const char *text = utf8_value(i, 1, &len);

			if (text != NULL)
				(void) idset_add(first, text, len);
			if (second != NULL && (text = utf8_value(i, 2, &len)) != NULL)
				(void) idset_add(second, text, len);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_cursor_close(portal);
	PopActiveSnapshot();
	writer_leave(&writer);
}

static uint64
write_rows(const char *sql, SqlArgs *p)
{
	WriterState writer;
	uint64		n;

	writer_enter(&writer);
	statement_restrict_planner();
	statement_check(SPI_execute_with_args(sql, p->n, p->types, p->values, NULL, false, 0));
	n = SPI_processed;
	writer_leave(&writer);
	return n;
}

#define SELECT_KEYS \
	"SELECT account_activity_item_id FROM accessreq.request_status WHERE server = $1"

void
stored_range(const char *server, const PullRange *range, IdSet *ids)
{
	SqlArgs	p = {0};

	sql_add_text(&p, server);
	if (range->all)
		collect(SELECT_KEYS " AND missing_since IS NULL", &p, ids, NULL);
	else if (range->undated)
		collect(SELECT_KEYS " AND created IS NULL AND missing_since IS NULL", &p, ids, NULL);
	else
	{
		/* -infinity and infinity are times as well */
		sql_add(&p, TIMESTAMPTZOID, TimestampTzGetDatum(range->from), false);
		sql_add(&p, TIMESTAMPTZOID, TimestampTzGetDatum(range->to == DT_NOBEGIN ? DT_NOEND : range->to), false);
		collect(SELECT_KEYS " AND created >= $2 AND created < $3 AND missing_since IS NULL",
				&p, ids, NULL);
	}
}

void
stored_open(const char *server, IdSet *ids)
{
	SqlArgs	p = {0};

	sql_add_text(&p, server);
	collect(SELECT_KEYS " AND " OPEN_ROW, &p, ids, NULL);
}

void
stored_items_of(const char *server, const char *const *requests, int n,
				IdSet *ids, IdSet *found)
{
	SqlArgs	p = {0};

	sql_add_text(&p, server);
	sql_add(&p, TEXTARRAYOID, ids_datum(requests, n), false);
	collect("SELECT account_activity_item_id, access_request_id"
			" FROM accessreq.request_status WHERE server = $1"
			" AND access_request_id = ANY ($2)", &p, ids, found);
}

/* A text of the current result's row in UTF-8; NULL for null. */
static const char *
copy_utf8(uint64 row, int column)
{
	size_t		len;
	const char *text = utf8_value(row, column, &len);

	return text ? pstrdup(text) : NULL;
}

List *
stored_marked(const char *server, const char *const *tokens, int n)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *rows = NIL;
	SqlArgs	p = {0};
	WriterState writer;
	uint64		found;

	sql_add_text(&p, server);
	sql_add(&p, TEXTARRAYOID, ids_datum(tokens, n), false);
	writer_enter_to_read(&writer);
	sql_go_by_indexes();
	found = sql_run("SELECT " MARK_OF_ROW("") ", account_activity_item_id, access_request_id, state"
					" FROM accessreq.request_status WHERE server = $1 AND " MARK_OF_ROW("") " = ANY ($2)",
					&p, SPI_OK_SELECT);
	MemoryContextSwitchTo(cxt);
	for (uint64 i = 0; i < found; i++)
	{
		StoredMarked *row = palloc(sizeof(StoredMarked));

		row->token = copy_utf8(i, 1);
		row->item_id = copy_utf8(i, 2);
		row->request_id = copy_utf8(i, 3);
		row->state = copy_utf8(i, 4);
		rows = lappend(rows, row);
	}
	writer_leave(&writer);
	return rows;
}

/* ---------------------------------------------------------------- candidates */

void
stored_forget_candidates(const char *server)
{
	SqlArgs	p = {0};

	sql_add_text(&p, server);
	write_rows("DELETE FROM accessreq.missing_candidate WHERE server = $1", &p);
}

void
stored_add_candidates(const char *server, int64 run_id, const char *const *ids, int n)
{
	SqlArgs	p = {0};

	if (n == 0)
		return;
	sql_add_text(&p, server);
	sql_add_int8(&p, run_id);
	sql_add(&p, TEXTARRAYOID, ids_datum(ids, n), false);
	write_rows("INSERT INTO accessreq.missing_candidate (server, run_id, account_activity_item_id)"
			   " SELECT $1, $2, id FROM pg_catalog.unnest($3) id"
			   " ON CONFLICT (server, account_activity_item_id) DO UPDATE SET run_id = excluded.run_id",
			   &p);
}

void
stored_drop_candidates(const char *server, const char *const *ids, int n)
{
	SqlArgs	p = {0};

	sql_add_text(&p, server);
	sql_add(&p, TEXTARRAYOID, ids_datum(ids, n), false);
	write_rows("DELETE FROM accessreq.missing_candidate"
			   " WHERE server = $1 AND account_activity_item_id = ANY ($2)", &p);
}

/* The candidates that are stored and not marked, as t. */
#define FROM_CANDIDATES \
	" FROM accessreq.missing_candidate c JOIN accessreq.request_status t" \
	" ON t.server = c.server AND t.account_activity_item_id = c.account_activity_item_id" \
	" WHERE c.server = $1 AND t.missing_since IS NULL"

static int64
count_rows(const char *sql, const char *server)
{
	SqlArgs	p = {0};
	WriterState writer;
	bool		isnull;
	int64		n;

	sql_add_text(&p, server);
	writer_enter_to_read(&writer);
	statement_restrict_planner();
	PushActiveSnapshot(GetLatestSnapshot());
	statement_check(SPI_execute_with_args(sql, p.n, p.types, p.values, NULL, true, 0));
	PopActiveSnapshot();
	n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	writer_leave(&writer);
	return n;
}

PullMissing
stored_candidates(const char *server)
{
	PullMissing missing = {0};
	SqlArgs	p = {0};
	IdSet	   *ids = idset_create(CurrentMemoryContext, FETCH_ROWS);

	missing.open_stored = count_rows("SELECT pg_catalog.count(*) FROM accessreq.request_status"
									 " WHERE server = $1 AND " OPEN_ROW, server);
	/* a count of all, only where it is looked at */
	if (missing.open_stored == 0)
		missing.stored = count_rows("SELECT pg_catalog.count(*) FROM accessreq.request_status"
								" WHERE server = $1 AND missing_since IS NULL", server);
	missing.open_missing = count_rows("SELECT pg_catalog.count(*)" FROM_CANDIDATES
									  " AND " OPEN_STATE("t."), server);
	sql_add_text(&p, server);
	collect("SELECT c.account_activity_item_id" FROM_CANDIDATES, &p, ids, NULL);
	missing.ids = idset_ids(ids);
	missing.nids = (int) idset_size(ids);
	return missing;
}

int64
stored_mark_missing(const char *server)
{
	SqlArgs	p = {0};
	int64		marked;

	sql_add_text(&p, server);
	marked = write_rows("UPDATE accessreq.request_status t"
						" SET missing_since = pg_catalog.clock_timestamp()"
						" FROM accessreq.missing_candidate c WHERE c.server = $1"
						" AND t.server = c.server"
						" AND t.account_activity_item_id = c.account_activity_item_id"
						" AND t.missing_since IS NULL", &p);
	stored_forget_candidates(server);
	return marked;
}

/* ------------------------------------------------------------------ what is old */

int64
stored_expire(const char *server, TimestampTz before, int most)
{
	static const char *const tables[] = {
		"approval", "phase", "manual_work_item", "state_change", "approval_change",
		"quarantined_item"
	};
	SqlArgs	p = {0};
	IdSet	   *ids = idset_create(CurrentMemoryContext, most);
	Datum		array;

	sql_add_text(&p, server);
	sql_add(&p, TIMESTAMPTZOID, TimestampTzGetDatum(before), false);
	sql_add_int4(&p, most);
	/* each by an index of its own */
	collect(SELECT_KEYS " AND created < $2"
			" AND coalesce(modified, created) < $2 AND NOT (" OPEN_STATE("") ") LIMIT $3",
			&p, ids, NULL);
	collect(SELECT_KEYS " AND created IS NULL"
			" AND modified < $2 AND NOT (" OPEN_STATE("") ") LIMIT $3", &p, ids, NULL);
	if (idset_size(ids) == 0)
		return 0;
	array = ids_datum(idset_ids(ids), (int) idset_size(ids));
	memset(&p, 0, sizeof(p));
	sql_add_text(&p, server);
	sql_add(&p, TEXTARRAYOID, array, false);
	for (int i = 0; i < (int) lengthof(tables); i++)
		write_rows(psprintf("DELETE FROM accessreq.%s WHERE server = $1"
							" AND account_activity_item_id = ANY ($2)", tables[i]), &p);
	return write_rows("DELETE FROM accessreq.request_status WHERE server = $1"
					  " AND account_activity_item_id = ANY ($2)", &p);
}
