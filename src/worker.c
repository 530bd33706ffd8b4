/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The life of a worker: one process in each database with the extension.
 *
 * It looks whether it may be here, does what there is to do, and sleeps until
 * the next deadline, the network or its latch.  With nothing to do it sleeps
 * for launcher_naptime at a time.
 *
 * It leaves by itself when a command wants the database, when the extension is
 * gone or its settings are not those that it came with; the launcher starts
 * another when there is to be one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "accessreq.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "mode.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "work.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "unit.h"
#include "utils/guc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "workers.h"

/*
 * Tables and page locks are waited for this long, so that one that is locked
 * does not keep the other pulls waiting.
 */
#define WORKER_LOCK_TIMEOUT "1s"

/* While a transaction is prepared that may concern us. */
#define PREPARED_LOOK_MS 1000

extern PGDLLEXPORT void accessreq_worker_main(Datum arg);

/* What ALTER DATABASE or ALTER ROLE say to sessions is not meant for us. */
static void
fix_settings(void)
{
	static const char *const settings[][2] = {
		{"lock_timeout", "0"},
		{"statement_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"search_path", "pg_catalog, pg_temp"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	compat_no_transaction_timeout();
}

static void
leave(void)
{
	proc_exit(0);
}

/*
 * What a unit found may be a reason to go, which the launcher must know.  Where it
 * is a setting, the answers to what is on its way are waited for (work: NULL where
 * there is none yet).
 */
static void
look_at_ground(Work *work)
{
	UnitGround	ground = unit_ground();

	if (work != NULL && (ground == UNIT_DISABLED || ground == UNIT_CHANGED))
	{
		unit_wind_up();
		work_wind_up(work);
	}
	switch (ground)
	{
		case UNIT_OK:
			return;
		case UNIT_NO_EXTENSION:
			workers_set_state(WORKER_WITHOUT);
			break;
		case UNIT_UNSUITED:
			workers_set_state(WORKER_UNSUITED);
			break;
		case UNIT_DISABLED:
			workers_set_state(WORKER_DISABLED);
			break;
		case UNIT_ANOTHER_WORKER:
		case UNIT_CHANGED:
			break;
	}
	leave();
}

static void
do_nothing(void *arg)
{
}

/* Is the extension here, and are we the only one?  Else this does not return. */
static void
look_around(Work *work)
{
	ErrorData  *error = unit_run(do_nothing, NULL);

	if (error != NULL)
		ReThrowError(error);
	look_at_ground(work);
}

static void
attend_to_interrupts(Work *work)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		look_around(work);
	}
	if (!accessreq_enabled || workers_must_leave())
	{
		work_wind_up(work);
		leave();
	}
}

/*
 * PostgreSQL releases session locks at the end of a transaction that failed,
 * and not at the end of a process that has none open, as ours mostly has not:
 * they would be held for ever by a process that is gone.
 */
static void
release_locks(int code, Datum arg)
{
	LockReleaseSession(DEFAULT_LOCKMETHOD);
}

/*
 * There is no statement of a user's to cancel, and a cancel between two units
 * would end the process.  But lock_timeout comes this way too.
 */
static void
on_cancel(SIGNAL_ARGS)
{
	if (get_timeout_indicator(LOCK_TIMEOUT, false))
		StatementCancelHandler(postgres_signal_arg);
}

static void
start(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (mode_why_no_worker() != NULL || !workers_enter(database))
		leave();
	/* before there is a transaction, which connecting is too */
	fix_settings();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	/* connecting waits for whatever locks it meets */
	SetConfigOption("lock_timeout", WORKER_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	before_shmem_exit(release_locks, (Datum) 0);
	pqsignal(SIGINT, on_cancel);
	pgstat_report_appname(WORKER_TYPE);
	if (!accessreq_enabled)
	{
		workers_set_state(WORKER_DISABLED);
		leave();
	}
	look_around(NULL);
	workers_set_state(WORKER_WANTED);
}

/* ------------------------------------------------------- prepared transactions */

static void
find_prepared(void *arg)
{
	bool	   *found = arg;

	*found = SPI_execute("SELECT 1 FROM pg_catalog.pg_prepared_xacts"
						 " WHERE database = pg_catalog.current_database() LIMIT 1", true, 1) == SPI_OK_SELECT &&
		SPI_processed > 0;
}

/*
 * How long to sleep with nothing to do, until one looks around all the same.
 * Nobody wakes us when a prepared transaction is committed: while there is one
 * that may have something for us we look every second, and where nobody can say
 * so, without shared memory, always.
 */
static long
naptime_ms(void)
{
	static TimestampTz looked_at = 0;
	static bool awaits = false;
	long		naptime = accessreq_launcher_naptime * 1000L;
	TimestampTz now = GetCurrentTimestamp();

	if (!workers_are_shared())
		return Min(naptime, PREPARED_LOOK_MS);
	if (workers_take_prepared() ||
		(awaits && now - looked_at >= PREPARED_LOOK_MS * INT64CONST(1000)))
	{
		looked_at = now;
		awaits = true;
		(void) unit_run(find_prepared, &awaits);
		/* the last of them may have been committed since we looked: at once */
		if (!awaits)
			return 0;
	}
	return awaits ? Min(naptime, PREPARED_LOOK_MS) : naptime;
}

/* Main function of the process; its argument is the database. */
void
accessreq_worker_main(Datum arg)
{
	Work	   *work;
	TimestampTz looked_at = GetCurrentTimestamp();

	start(DatumGetObjectId(arg));
	work = work_open();
	for (;;)
	{
		TimestampTz look_at;
		long		wait;

		attend_to_interrupts(work);
		wait = work_turn(work);
		look_at_ground(work);
		look_at = looked_at + naptime_ms() * INT64CONST(1000);
		wait = unit_sooner(wait, unit_ms_until(look_at, GetCurrentTimestamp()));
		if (work_sleep(work, wait) || GetCurrentTimestamp() >= look_at)
		{
			work_look(work);
			looked_at = GetCurrentTimestamp();
		}
	}
}
