/*-------------------------------------------------------------------------
 *
 * sql.c
 *	  A statement on the extension's tables, with its arguments and results.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "sql.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

void
sql_add(SqlArgs *args, Oid type, Datum value, bool isnull)
{
	Assert(args->n < SQL_MAX_ARGS);
	args->types[args->n] = type;
	args->values[args->n] = value;
	args->nulls[args->n] = isnull ? 'n' : ' ';
	args->n++;
}

void
sql_add_text(SqlArgs *args, const char *text)
{
	sql_add(args, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

void
sql_add_int8(SqlArgs *args, int64 value)
{
	sql_add(args, INT8OID, Int64GetDatum(value), false);
}

void
sql_add_int4(SqlArgs *args, int32 value)
{
	sql_add(args, INT4OID, Int32GetDatum(value), false);
}

void
sql_add_bool(SqlArgs *args, bool value)
{
	sql_add(args, BOOLOID, BoolGetDatum(value), false);
}

void
sql_add_oid(SqlArgs *args, Oid value)
{
	sql_add(args, OIDOID, ObjectIdGetDatum(value), false);
}

void
sql_add_time(SqlArgs *args, TimestampTz t)
{
	sql_add(args, TIMESTAMPTZOID, TimestampTzGetDatum(t), t == DT_NOBEGIN);
}

static uint64
check(int rc, int expected)
{
	if (rc != expected)
		elog(ERROR, "unexpected result %d of a statement on a table of accessreq", rc);
	return SPI_processed;
}

uint64
sql_run(const char *sql, SqlArgs *args, int expected)
{
	return check(SPI_execute_with_args(sql, args->n, args->types, args->values,
									   args->nulls, false, 0), expected);
}

static void
prepare(SPIPlanPtr *plan, const char *sql, SqlArgs *args, int expected)
{
	SPIPlanPtr	made;

	if (*plan != NULL)
		return;
	made = SPI_prepare(sql, args->n, args->types);
	if (made == NULL)
		(void) check(SPI_result, expected);
	(void) SPI_keepplan(made);
	*plan = made;
}

uint64
sql_run_kept(SPIPlanPtr *plan, const char *sql, SqlArgs *args, int expected)
{
	prepare(plan, sql, args, expected);
	return check(SPI_execute_plan(*plan, args->values, args->nulls, false, 0), expected);
}

void
sql_go_by_indexes(void)
{
	static const char *const off[] = {
		"enable_seqscan", "enable_sort", "enable_hashjoin", "enable_mergejoin",
		"enable_memoize", "enable_material", "jit"
	};

	for (int i = 0; i < (int) lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("plan_cache_mode", "force_generic_plan", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

uint64
sql_read_latest(SPIPlanPtr *plan, const char *sql, SqlArgs *args)
{
	uint64		rows;

	prepare(plan, sql, args, SPI_OK_SELECT);
	/* read-only: it goes by the snapshot that is active, and takes none of its own */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	rows = check(SPI_execute_plan(*plan, args->values, args->nulls, true, 0), SPI_OK_SELECT);
	PopActiveSnapshot();
	return rows;
}

Datum
sql_datum(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

char *
sql_text(uint64 row, int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
	char	   *copy = NULL;

	if (value != NULL)
	{
		copy = SPI_palloc(strlen(value) + 1);
		strcpy(copy, value);
	}
	return copy;
}

TimestampTz
sql_time(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sql_datum(row, column, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

bool
sql_true(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sql_datum(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

int64
sql_int(uint64 row, int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value ? strtoll(value, NULL, 10) : 0;
}
