/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher: one process that sees to it that every database with the
 *	  extension has a worker.
 *
 * It is connected to no database and reads pg_database alone: what is in a
 * database, and what ALTER DATABASE set for it, only a process in it can see.
 * So a worker is started in each that is new, looks, and is gone at once where
 * the extension is not there or switched off.
 * PostgreSQL starts the launcher when recovery has ended, so there is none on a
 * standby, and one soon after its promotion.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "accessreq.h"
#include "compat.h"
#include "launcher.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "workers.h"

/* PostgreSQL starts it again after an error, so late. */
#define RESTART_SECONDS 5

/* A worker that was registered and has not come yet. */
typedef struct Starting
{
	Oid			database;
	BackgroundWorkerHandle *handle;
} Starting;

extern PGDLLEXPORT void accessreq_launcher_main(Datum arg);

void
launcher_register(void)
{
	BackgroundWorker worker = {0};

	if (IsBinaryUpgrade)
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, WORKER_LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, LAUNCHER_MAIN, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, LAUNCHER_TYPE, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, LAUNCHER_TYPE, sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

bool
launcher_start_worker(Oid database, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	/* who starts it again, and when, is the launcher's to say */
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, WORKER_LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, WORKER_MAIN, sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), WORKER_TYPE " for database %u", database);
	strlcpy(worker.bgw_type, WORKER_TYPE, sizeof(worker.bgw_type));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* A List of WorkerDatabase * in the current context. */
static List *
read_databases(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(cxt);
		WorkerDatabase *database = palloc(sizeof(WorkerDatabase));

		database->oid = form->oid;
		database->eligible = accessreq_enabled && form->datallowconn && !form->datistemplate &&
			!compat_database_is_invalid(form);
		databases = lappend(databases, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(cxt);
	return databases;
}

/* Those that ended before they came: their database does not let them in. */
static List *
look_at_starting(List *starting)
{
	ListCell   *cell;

	foreach(cell, starting)
	{
		Starting   *s = lfirst(cell);
		pid_t		pid;

		if (GetBackgroundWorkerPid(s->handle, &pid) == BGWH_NOT_YET_STARTED)
			continue;
		/* one that has come says so itself, and this does nothing */
		if (GetBackgroundWorkerPid(s->handle, &pid) == BGWH_STOPPED)
			workers_start_failed(s->database, false);
		else
			continue;
		pfree(s->handle);
		pfree(s);
		starting = foreach_delete_current(starting, cell);
	}
	return starting;
}

static List *
start_workers(List *starting, long *wait_ms)
{
	Oid			database;

	while (OidIsValid(database = workers_next_to_start(wait_ms)))
	{
		Starting   *s = palloc(sizeof(Starting));

		s->database = database;
		if (launcher_start_worker(database, &s->handle))
			starting = lappend(starting, s);
		else
		{
			workers_start_failed(database, true);
			pfree(s);
		}
	}
	return starting;
}

/* One look at everything; returns how long to wait for the next. */
static long
look(List **starting, MemoryContext turn)
{
	long		wait_ms = accessreq_launcher_naptime * 1000L;
	MemoryContext old = MemoryContextSwitchTo(turn);

	workers_note_databases(read_databases());
	MemoryContextSwitchTo(old);
	*starting = look_at_starting(*starting);
	*starting = start_workers(*starting, &wait_ms);
	MemoryContextReset(turn);
	return wait_ms;
}

/* What the configuration says to sessions is not meant for us. */
static void
fix_settings(void)
{
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	compat_no_transaction_timeout();
}

void
accessreq_launcher_main(Datum arg)
{
	MemoryContext cxt,
				turn;
	List	   *starting = NIL;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	fix_settings();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(LAUNCHER_TYPE);
	workers_launcher_starts();
	cxt = AllocSetContextCreate(TopMemoryContext, "accessreq launcher", ALLOCSET_DEFAULT_SIZES);
	turn = AllocSetContextCreate(cxt, "accessreq launcher turn", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);
	for (;;)
	{
		long		wait_ms;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			workers_reconsider();
		}
		wait_ms = look(&starting, turn);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait_ms, compat_wait_event(WAIT_LAUNCHER));
		ResetLatch(MyLatch);
	}
}
