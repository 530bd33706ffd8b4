/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  Triggers that users put on the synced tables.  Internal to store.c and
 *	  its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_GUARD_H
#define ACCESSREQ_GUARD_H

#include "tables.h"

/*
 * Raise 42501 where a write to the synced tables or quarantined_item would
 * run code of somebody who could not become their owner anyway.  Leaves the
 * tables locked, so that it stays so to the end of the transaction.  The
 * writer is entered.
 */
extern void guard_check_triggers(void);

/* Can a user's trigger keep rows from being updated?  The table is locked. */
extern bool guard_has_before_update(TableId id);

#endif							/* ACCESSREQ_GUARD_H */
