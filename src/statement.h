/*-------------------------------------------------------------------------
 *
 * statement.h
 *	  The statements that write a page.  Internal to store.c and its parts.
 *
 * SPI must be connected for all of them, and the writer entered.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_STATEMENT_H
#define ACCESSREQ_STATEMENT_H

#include "page.h"
#include "rowset.h"

/*
 * Write these rows into the synced tables.  Raises 40001 where a row that the
 * lookup saw is out of the statement's sight, and whatever tables, constraints
 * and triggers raise.
 */
extern void statement_write(Store *store, Rows *rows);

/*
 * Run a statement with parameters server, text, and text[] of the ids of the
 * items for which "wanted" holds; none where there are none.
 */
extern void statement_for_ids(Store *store, const char *sql,
							  bool (*wanted) (const StoreItem *item));

/*
 * Let the planner join by the keys' indexes alone, until the caller's nest level
 * of settings ends.
 */
extern void statement_restrict_planner(void);

/* A result of SPI's functions; raises XX000 where it is an error. */
extern int	statement_check(int code);

#endif							/* ACCESSREQ_STATEMENT_H */
