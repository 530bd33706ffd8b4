/*-------------------------------------------------------------------------
 *
 * workers.h
 *	  What the launcher, the workers and sessions know of each other: which
 *	  databases have, want or must not have a worker now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_WORKERS_H
#define ACCESSREQ_WORKERS_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/lwlock.h"

/* The type of a worker, as pg_stat_activity shows it, and its main function. */
#define WORKER_TYPE "accessreq worker"
#define WORKER_MAIN "accessreq_worker_main"
#define LAUNCHER_TYPE "accessreq launcher"
#define LAUNCHER_MAIN "accessreq_launcher_main"
#define WORKER_LIBRARY "accessreq"

/* What is known of a database. */
typedef enum WorkerState
{
	WORKER_UNPROBED,			/* a worker must look whether the extension is there */
	WORKER_WANTED,				/* it is */
	WORKER_WITHOUT,				/* it is not: CREATE EXTENSION says when it is */
	WORKER_DISABLED,			/* accessreq.enabled is off for it */
	WORKER_STOPPED,				/* stop_worker(), until start_worker() or a restart */
	WORKER_UNSUITED				/* its version is not this library's */
} WorkerState;

/* Is there shared memory, so that there is a launcher too? */
extern bool workers_are_shared(void);
extern Size workers_shmem_size(void);
extern void workers_shmem_init(LWLock *lock);

/* ----------------------------------------------------------- for the launcher */

typedef struct WorkerDatabase
{
	Oid			oid;
	bool		eligible;		/* may it have a worker at all? */
} WorkerDatabase;

extern void workers_launcher_starts(void);

/* These are the databases there are (a List of WorkerDatabase *). */
extern void workers_note_databases(List *databases);

/*
 * A database whose worker is to be started now, or InvalidOid; *wait_ms is made
 * smaller where one is to be started later.  Then it counts as starting until
 * its worker says otherwise, or workers_start_failed() is called.
 */
extern Oid	workers_next_to_start(long *wait_ms);
extern void workers_start_failed(Oid database, bool no_slot);

/* Settings may have changed: look again where they said no. */
extern void workers_reconsider(void);

/* ------------------------------------------------------------- for the workers */

/* This process is the worker of its database; false: it must not be. */
extern bool workers_enter(Oid database);

/* What it found, and whether it must leave. */
extern void workers_set_state(WorkerState state);
extern bool workers_must_leave(void);

/*
 * The one worker of a database holds a session lock on the extension, with
 * which it is found too, preloaded or not.
 */
extern bool workers_lock(Oid extension);

/* --------------------------------------------------------------- for sessions */

/* The worker of this database, 0: none. */
extern int	workers_pid(void);

/*
 * Why none runs: a sentence in the current context.  Never NULL, but where
 * *starting is set it will in a moment.
 */
extern char *workers_why_not(bool *starting);

/* Would accessreq.start_worker() be of use, in this mode of the server? */
extern bool workers_may_start(void);

/*
 * At commit: what the worker of a database looks at has changed.  True where this
 * was not yet asked for in this transaction.
 */
extern bool workers_wake_at_commit(Oid database);

/*
 * Has a transaction been prepared here, since this was last asked, that such a
 * wake belonged to?  Its commit wakes nobody.  True too once after a start.
 */
extern bool workers_take_prepared(void);

/* start_worker() and stop_worker(), preloaded. */
extern void workers_start_here(void);
extern void workers_stop_here(void);

/*
 * Make the worker of a database leave, for a command that wants the database
 * for itself, and wait until it has, some seconds at most; and let it return.
 */
extern void workers_send_away(Oid database);
extern void workers_let_return(Oid database);

#endif							/* ACCESSREQ_WORKERS_H */
