/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  Running statements as the owner of the synced tables.
 *
 * No role is granted writes on the synced tables; the extension's own
 * statements write them as their owner, under the same restrictions that
 * VACUUM or REFRESH MATERIALIZED VIEW put on themselves, and for those
 * statements alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_WRITER_H
#define ACCESSREQ_WRITER_H

#include "postgres.h"

typedef struct WriterState
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
	bool		read_only;
	MemoryContext cxt;
} WriterState;

/* The owner of the synced tables. */
extern Oid	writer_tables_owner(void);

/* The schema of the extension; raises 42704 where it is not installed. */
extern Oid	writer_schema(void);

/*
 * OID of a table in it; raises 42P01 where it is gone, 55000 where the extension
 * is of another version than the library.  Holds off DROP EXTENSION to the end of
 * the transaction.
 */
extern Oid	writer_table(const char *name);

/*
 * Become the owner of request_status, search_path pg_catalog, pg_temp; and go
 * back.  Whoever enters leaves, on errors too (PG_TRY, or a subtransaction's
 * abort, which restores user and settings by itself).
 *
 * writer_enter() raises 42501 where one of the tables has a trigger that must
 * not run as their owner, 55000 under binary upgrade, and locks them all as a
 * write does.
 * writer_enter_to_read() does neither, and so also works on a standby; there
 * every write raises 25006.  writer_leave() also returns to the memory context
 * of the entry: SPI leaves its own as the current one, which ends with it.
 */
extern void writer_enter(WriterState *state);

/*
 * To write one table alone, whose triggers alone are looked at: so that what is
 * wrong with another can be noted.
 */
extern void writer_enter_for(WriterState *state, const char *table);
extern void writer_enter_to_read(WriterState *state);
extern void writer_leave(const WriterState *state);

#endif							/* ACCESSREQ_WRITER_H */
