/*-------------------------------------------------------------------------
 *
 * tables.h
 *	  The synced tables as store.c and its parts see them: names, and the
 *	  columns that a page fills.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_TABLES_H
#define ACCESSREQ_TABLES_H

#include "row.h"

typedef struct StoreColumn
{
	const char *name;
	Oid			type;
} StoreColumn;

/*
 * A table with the columns that a tuplestore of new or changed rows has.  The
 * times, which are the same in all rows of a page, are not among them: they
 * are a parameter of the statements.
 */
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

extern const StoreTable store_tables[NUM_TABLES];

/*
 * When a row is open: its state is not one of the seven that end a request, so
 * that one which the tenant adds counts as open.  The index
 * request_status_open_idx has the same words.
 */
#define OPEN_STATE(prefix) \
	"(" prefix "state IS NULL OR " prefix "state <> ALL (ARRAY['REQUEST_COMPLETED', 'CANCELLED'," \
	" 'TERMINATED', 'REJECTED', 'PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR']::text[]))"
#define OPEN_ROW "missing_since IS NULL AND " OPEN_STATE("")

/*
 * All tables of accessreq--1.0.sql; each has a column "server".  022_guards.pl
 * compares them with what is in the schema.
 */
#define NUM_EXTENSION_TABLES 11
extern const char *const extension_tables[NUM_EXTENSION_TABLES];

#define QUARANTINE_TABLE "quarantined_item"

/* The columns that every key leads with, that of QUARANTINE_TABLE too. */
#define KEY_SERVER "server"
#define KEY_ID "account_activity_item_id"

/* Where the columns are that do not come from row.h. */
#define COLUMN_SERVER 0
#define COLUMN_ID 1
#define STATUS_RAW (COLUMN_ID + ROW_API_COLUMNS)
#define STATUS_HASH (STATUS_RAW + 1)
#define CHILD_ORDINAL (COLUMN_ID + 1)
#define CHILD_FIRST (CHILD_ORDINAL + 1)

/* No table has more columns than request_status. */
#define MAX_COLUMNS (STATUS_HASH + 1)

#endif							/* ACCESSREQ_TABLES_H */
