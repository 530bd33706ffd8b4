/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  The statements that write a page: their text, their plans, their order.
 *
 * One statement a table and kind, that reads the rows of rowset.c by a name
 * (the measurements behind it: unnest of arrays costs a quarter more, and ON
 * CONFLICT for all locks and logs every row).  Every name in them is
 * qualified; operators are those of the writer's search_path, pg_catalog.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "guard.h"
#include "statement.h"
#include "writer.h"

/* What sizes of children are registered under, see rowset.c. */
#define SIZES_NAME "sizes"

/*
 * Statements kept for the life of the process: planning the seven of a page
 * with one changed item anew would cost more than comparing its 250 items.
 */
typedef enum StatementKind
{
	STATEMENT_INSERT,
	STATEMENT_UPDATE,
	STATEMENT_UPSERT,
	STATEMENT_DELETE_SURPLUS,
	STATEMENT_HISTORY_OF_ADDED,
	STATEMENT_HISTORY_OF_CHANGED
} StatementKind;

#define NUM_STATEMENTS (STATEMENT_HISTORY_OF_CHANGED + 1)

typedef struct Statement
{
	SPIPlanPtr	plan;			/* NULL: not made yet */
	BlockNumber size;			/* of the table, when it was planned */
	Oid			temp_schema;	/* the session's, likewise */
} Statement;

/* A table's size where it is not that of one file. */
#define UNKNOWN_SIZE InvalidBlockNumber

static Statement statements[NUM_TABLES][NUM_STATEMENTS];

int
statement_check(int code)
{
	if (code < 0)
		elog(ERROR, "SPI failed: %s", SPI_result_code_string(code));
	return code;
}


/* ----------------------------------------------------------------
 *		Their text
 * ----------------------------------------------------------------
 */

/* The parameters of all kept statements. */
#define PARAM_SENT_AT "$1"
#define PARAM_RUN_ID "$2"		/* null for refresh() */

static const Oid statement_types[] = {TIMESTAMPTZOID, INT8OID};

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

/*
 * Since when its owner holds a new row's approval: the tenant's time of its last
 * change, where we have not seen it come.
 */
#define PENDING_SINCE_FIRST \
	"CASE WHEN r.status = 'PENDING' THEN least(coalesce(r.modified, " PARAM_SENT_AT "), " PARAM_SENT_AT ") END"

/*
 * The stored version of an approval, as m: the one with its id, or, where one of
 * the two has none, the one at its place.
 */
#define MATCHING_APPROVAL \
	" LEFT JOIN LATERAL (SELECT t.* FROM accessreq.approval t WHERE " SAME_ITEM \
	" AND (t.approval_id = r.approval_id OR (t.ordinal = r.ordinal" \
	" AND (t.approval_id IS NULL OR r.approval_id IS NULL)))" \
	" ORDER BY t.approval_id IS NULL OR r.approval_id IS NULL LIMIT 1) m ON true"

static void
build_insert(StringInfo sql, TableId id)
{
	const StoreTable *table = &store_tables[id];

	appendStringInfo(sql, "INSERT INTO accessreq.%s (", table->name);
	append_columns(sql, table, 0, "");
	if (id == TABLE_STATUS)
		appendStringInfoString(sql, ", first_seen_at, changed_at");
	else if (id == TABLE_APPROVAL)
		appendStringInfoString(sql, ", pending_since");
	appendStringInfoString(sql, ") SELECT ");
	append_columns(sql, table, 0, "r.");
	if (id == TABLE_STATUS)
		appendStringInfoString(sql, ", " PARAM_SENT_AT ", " PARAM_SENT_AT);
	else if (id == TABLE_APPROVAL)
		appendStringInfoString(sql, ", " PENDING_SINCE_FIRST);
	appendStringInfo(sql, " FROM added_%s r", table->name);
}

static void
build_update(StringInfo sql, TableId id)
{
	const StoreTable *table = &store_tables[id];

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
	const StoreTable *table = &store_tables[id];

	appendStringInfo(sql, "INSERT INTO accessreq.%s (", table->name);
	append_columns(sql, table, 0, "");
	if (id == TABLE_APPROVAL)
		appendStringInfoString(sql, ", pending_since");
	appendStringInfoString(sql, ") SELECT ");
	append_columns(sql, table, 0, "r.");
	if (id == TABLE_APPROVAL)
		appendStringInfoString(sql, ", CASE WHEN r.status = 'PENDING' THEN"
							   " CASE WHEN m.status = 'PENDING'"
							   " AND m.current_owner_id IS NOT DISTINCT FROM r.current_owner_id"
							   " THEN m.pending_since ELSE " PARAM_SENT_AT " END END");
	appendStringInfo(sql, " FROM changed_%s r LEFT JOIN accessreq.%s t"
					 " ON " SAME_ITEM " AND t.ordinal = r.ordinal%s"
					 " WHERE t.server IS NULL OR (",
					 table->name, table->name, id == TABLE_APPROVAL ? MATCHING_APPROVAL : "");
	append_columns(sql, table, table->nkeys, "t.");
	appendStringInfoString(sql, ") IS DISTINCT FROM (");
	append_columns(sql, table, table->nkeys, "r.");
	appendStringInfoString(sql, ") ON CONFLICT (server, account_activity_item_id, ordinal)"
						   " DO UPDATE SET ");
	append_assignments(sql, table, "excluded");
	if (id == TABLE_APPROVAL)
		appendStringInfoString(sql, ", pending_since = excluded.pending_since");
}

static void
build_delete_surplus(StringInfo sql, TableId id)
{
	appendStringInfo(sql, "DELETE FROM accessreq.%s t USING " SIZES_NAME " r"
					 " WHERE " SAME_ITEM " AND t.ordinal > r.%s",
					 store_tables[id].name, store_tables[id].name);
}

/*
 * What the tenant does not keep: each change that was observed, the first sight
 * of a row included.  The statements for what has changed compare with what is
 * stored, so they come before the ones that write it.  Two answers to requests
 * that left in the same microsecond are one observation; so nothing of it is in
 * the way of storing a row.
 */
#define STATE_CHANGE \
	"INSERT INTO accessreq.state_change (server, account_activity_item_id, observed_at," \
	" access_request_id, old_state, new_state, modified, run_id)" \
	" SELECT r.server, r.account_activity_item_id, " PARAM_SENT_AT ", r.access_request_id,"
#define APPROVAL_CHANGE \
	"INSERT INTO accessreq.approval_change (server, account_activity_item_id, ordinal," \
	" observed_at, approval_id, modified, new_status, new_owner_id, new_owner_name, run_id," \
	" access_request_id, old_status, old_owner_id, old_owner_name)" \
	" SELECT r.server, r.account_activity_item_id, r.ordinal, " PARAM_SENT_AT ", r.approval_id," \
	" r.modified, r.status, r.current_owner_id, r.current_owner_name, " PARAM_RUN_ID "," \
	" s.access_request_id,"
#define ITS_STATUS \
	" LEFT JOIN accessreq.request_status s ON s.server = r.server" \
	" AND s.account_activity_item_id = r.account_activity_item_id"

static void
build_history_of_added(StringInfo sql, TableId id)
{
	if (id == TABLE_STATUS)
		appendStringInfoString(sql, STATE_CHANGE " NULL, r.state, r.modified, " PARAM_RUN_ID
							   " FROM added_request_status r ON CONFLICT DO NOTHING");
	else
		appendStringInfoString(sql, APPROVAL_CHANGE " NULL, NULL, NULL"
							   " FROM added_approval r" ITS_STATUS " ON CONFLICT DO NOTHING");
}

static void
build_history_of_changed(StringInfo sql, TableId id)
{
	if (id == TABLE_STATUS)
		appendStringInfoString(sql, STATE_CHANGE " t.state, r.state,"
							   " CASE WHEN r.modified IS DISTINCT FROM t.modified THEN r.modified END, " PARAM_RUN_ID
							   " FROM changed_request_status r JOIN accessreq.request_status t ON " SAME_ITEM
							   " WHERE t.state IS DISTINCT FROM r.state"
							   " ON CONFLICT (server, account_activity_item_id, observed_at)"
							   " DO UPDATE SET new_state = excluded.new_state");
	else
		appendStringInfoString(sql, APPROVAL_CHANGE " m.status, m.current_owner_id, m.current_owner_name"
							   " FROM changed_approval r" MATCHING_APPROVAL ITS_STATUS
							   " WHERE m.status IS DISTINCT FROM r.status"
							   " OR m.current_owner_id IS DISTINCT FROM r.current_owner_id"
							   " ON CONFLICT (server, account_activity_item_id, ordinal, observed_at)"
							   " DO UPDATE SET new_status = excluded.new_status,"
							   " new_owner_id = excluded.new_owner_id,"
							   " new_owner_name = excluded.new_owner_name");
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
		case STATEMENT_HISTORY_OF_ADDED:
			build_history_of_added(&sql, table);
			break;
		case STATEMENT_HISTORY_OF_CHANGED:
			build_history_of_changed(&sql, table);
			break;
	}
	return sql.data;
}


/* ----------------------------------------------------------------
 *		Their plans
 * ----------------------------------------------------------------
 */

/*
 * All our joins are of at most a few hundred rows with a key, for which a
 * nested loop over the key's index is right whatever the number of rows of the
 * page that happens to be planned for; so nothing else is let in.  (JIT,
 * because the penalties would make it look worthwhile.)
 */
void
statement_restrict_planner(void)
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
	Relation	rel = table_open(writer_table(store_tables[id].name), RowExclusiveLock);
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
	return size == UNKNOWN_SIZE || planned == UNKNOWN_SIZE ||
		size > (uint64) planned + planned / 2;
}

/*
 * The schema of this session's temporary objects, which is in the writer's
 * search_path once it exists.
 */
static Oid
temp_schema(void)
{
	Oid			schema;
	Oid			toast_schema;

	GetTempNamespaceState(&schema, &toast_schema);
	return schema;
}

/*
 * Plan a statement and keep it.  The settings hold for the planning alone: the
 * triggers of users, which run with the statement, are none of their business.
 */
static void
make_plan(Statement *statement, TableId table, StatementKind kind, BlockNumber size)
{
	int			guc_level = NewGUCNestLevel();
	SPIPlanPtr	plan;

	statement_restrict_planner();
	plan = SPI_prepare_cursor(statement_sql(table, kind), lengthof(statement_types),
							  (Oid *) statement_types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		statement_check(SPI_result);
	statement_check(SPI_keepplan(plan));
	statement->plan = plan;
	/* should planning raise: it is kept, but for no size */
	statement->size = UNKNOWN_SIZE;
	ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), CurrentResourceOwner);
	statement->size = size;
	statement->temp_schema = temp_schema();
	AtEOXact_GUC(false, guc_level);
}

/*
 * A kept statement, planned.  What PostgreSQL itself would plan anew, for an
 * altered table or another search_path, is made anew here, because it would
 * do so without our settings.
 */
static SPIPlanPtr
prepare(TableId table, StatementKind kind)
{
	Statement  *statement = &statements[table][kind];
	BlockNumber size = table_size(table);

	if (statement->plan != NULL)
	{
		if (SPI_plan_is_valid(statement->plan) &&
			statement->temp_schema == temp_schema() &&
			!is_outgrown(kind, statement->size, size))
			return statement->plan;
		SPI_freeplan(statement->plan);
		statement->plan = NULL;
	}
	make_plan(statement, table, kind, size);
	return statement->plan;
}


/* ----------------------------------------------------------------
 *		Running them
 * ----------------------------------------------------------------
 */

/* Run a kept statement and return how many rows it wrote. */
static uint64
run_statement(Store *store, TableId table, StatementKind kind)
{
	Datum		values[lengthof(statement_types)];
	const char *nulls = store->page->run_id == 0 ? " n" : NULL;

	values[0] = TimestampTzGetDatum(store->page->sent_at);
	values[1] = Int64GetDatum(store->page->run_id);
	statement_check(SPI_execute_plan(prepare(table, kind), values, nulls, false, 0));
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
	statement_check(SPI_register_relation(enr));
	MemoryContextSwitchTo(oldcxt);
}

static void
register_all_rows(Rows *rows)
{
	for (TableId i = 0; i < NUM_TABLES; i++)
	{
		if (rows->added[i].n > 0)
			register_rows(rows, &rows->added[i], "added_", store_tables[i].name);
		if (rows->changed[i].n > 0)
			register_rows(rows, &rows->changed[i], "changed_", store_tables[i].name);
	}
	if (rows->sizes.n > 0)
		register_rows(rows, &rows->sizes, "", SIZES_NAME);
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

	if (updated != (uint64) changed->n && !guard_has_before_update(TABLE_STATUS))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not store statuses of server \"%s\" due to concurrent changes",
						store->page->server),
				 errhint("Try again.")));
}

void
statement_write(Store *store, Rows *rows)
{
	register_all_rows(rows);
	for (TableId i = 0; i < NUM_TABLES; i++)
	{
		bool		has_history = i == TABLE_STATUS || i == TABLE_APPROVAL;

		if (rows->added[i].n > 0)
			(void) run_statement(store, i, STATEMENT_INSERT);
		if (rows->added[i].n > 0 && has_history)
			(void) run_statement(store, i, STATEMENT_HISTORY_OF_ADDED);
		if (rows->changed[i].n > 0 && has_history)
			(void) run_statement(store, i, STATEMENT_HISTORY_OF_CHANGED);
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

/* These statements are rare, and so planned with the values at hand. */
void
statement_for_ids(Store *store, const char *sql,
				  bool (*wanted) (const StoreItem *item))
{
	Oid			types[] = {TEXTOID, TEXTARRAYOID};
	Datum		values[lengthof(types)];
	int			n;

	values[0] = store->server;
	values[1] = page_ids(store, wanted, &n);
	if (n > 0)
		statement_check(SPI_execute_with_args(sql, lengthof(types), types, values,
											  NULL, false, 0));
}
