/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  Triggers that users put on the extension's tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_GUARD_H
#define ACCESSREQ_GUARD_H

#include "tables.h"

/*
 * Raise 42501 where a write to one of the extension's tables as "owner" would
 * run code of somebody who could not become that role anyway.  Leaves the
 * tables locked, so that it stays so to the end of the transaction.  Called by
 * writer_enter(), and by nobody else.
 */
extern void guard_check_triggers(Oid owner);

/* The same for one table, for who writes no other. */
extern void guard_check_table(const char *table, Oid owner);

/* Can a user's trigger keep rows from being updated?  The table is locked. */
extern bool guard_has_before_update(TableId id);

#endif							/* ACCESSREQ_GUARD_H */
