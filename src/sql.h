/*-------------------------------------------------------------------------
 *
 * sql.h
 *	  A statement on the extension's tables, with its arguments and results.
 *
 * SPI must be connected; what is read of a result lives in the context of the
 * caller of SPI_connect().
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_SQL_H
#define ACCESSREQ_SQL_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"

#define SQL_MAX_ARGS 24

/* Arguments of a statement, built up one by one. */
typedef struct SqlArgs
{
	int			n;
	Oid			types[SQL_MAX_ARGS];
	Datum		values[SQL_MAX_ARGS];
	char		nulls[SQL_MAX_ARGS];
} SqlArgs;

extern void sql_add(SqlArgs *args, Oid type, Datum value, bool isnull);
extern void sql_add_text(SqlArgs *args, const char *text);	/* or NULL */
extern void sql_add_int8(SqlArgs *args, int64 value);
extern void sql_add_int4(SqlArgs *args, int32 value);
extern void sql_add_bool(SqlArgs *args, bool value);
extern void sql_add_oid(SqlArgs *args, Oid value);
extern void sql_add_time(SqlArgs *args, TimestampTz t); /* DT_NOBEGIN: null */

/*
 * Run it, and return the rows that it read or wrote.  Raises XX000 where it is
 * not of the kind that is expected (SPI_OK_SELECT, …), which only a rule on a
 * table can bring about.
 */
extern uint64 sql_run(const char *sql, SqlArgs *args, int expected);

/*
 * The same with a plan that is kept in *plan, for what is run often.  The types
 * of its arguments are always the same.
 */
extern uint64 sql_run_kept(SPIPlanPtr *plan, const char *sql, SqlArgs *args, int expected);

/*
 * Read what is committed now, also under REPEATABLE READ, with what this
 * transaction has done; the plan is kept in *plan.
 */
extern uint64 sql_read_latest(SPIPlanPtr *plan, const char *sql, SqlArgs *args);

/*
 * To the end of the current level of settings (writer_enter() begins one) plans go
 * by the tables' indexes, whatever the statistics say: table action is empty most
 * of the time and may be long the next moment, and a kept plan outlives that.
 */
extern void sql_go_by_indexes(void);

/* Columns, from 1, of a row of the last result. */
extern char *sql_text(uint64 row, int column);	/* NULL for null */
extern TimestampTz sql_time(uint64 row, int column);	/* DT_NOBEGIN for null */
extern bool sql_true(uint64 row, int column);	/* false for null */
extern int64 sql_int(uint64 row, int column);	/* 0 for null */
extern Datum sql_datum(uint64 row, int column, bool *isnull);

#endif							/* ACCESSREQ_SQL_H */
