/*-------------------------------------------------------------------------
 *
 * workers.c
 *	  What the launcher, the workers and sessions know of each other.
 *
 * When the library is preloaded there is an array in shared memory with an
 * entry for each database: values alone, no pointers, since any of the
 * processes may end at any moment.  Everybody looks at it when its latch is
 * set; nobody polls.
 *
 * Without preload there is none.  Then a worker is known by the lock that it
 * holds, and woken by its latch alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "accessreq.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "compat.h"
#include "miscadmin.h"
#include "mode.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "workers.h"

/* Databases that can have a worker; the others are left out, and it is logged. */
#define MAX_DATABASES 1024

/* objsubid of the lock of a database's one worker; DROP EXTENSION takes 0. */
#define WORKER_LOCK 1

/*
 * A worker that ended by an error, or was terminated, is started again after a
 * pause that doubles; one that has lived for long was well.
 */
#define FIRST_PAUSE_US USECS_PER_SEC
#define LAST_PAUSE_US (60 * USECS_PER_SEC)
#define LIVED_LONG_US (60 * USECS_PER_SEC)

/*
 * How long a command waits for a worker to leave by itself, and after a signal.
 * PostgreSQL itself waits for 5 more seconds.
 */
#define LEAVE_MS 2000
#define LEAVE_POLL_MS 5

typedef struct WorkerEntry
{
	Oid			database;		/* InvalidOid: free */
	WorkerState state;
	bool		eligible;		/* in the launcher's eyes */
	bool		starting;		/* registered, and not there yet */
	bool		no_slot;		/* max_worker_processes was reached */
	bool		asked;			/* for a look, since its worker came */
	bool		prepared;		/* a transaction that will ask for one */
	bool		at_work;		/* its worker has found all it wants */
	int			pid;			/* of its worker, 0: none */
	int			leaver;			/* backend whose command wants the database */
	int			failures;
	TimestampTz started;		/* of the worker */
	TimestampTz start_after;
} WorkerEntry;

typedef struct WorkersShared
{
	LWLock	   *lock;			/* in shared memory too */
	int			launcher;		/* its pid, 0: none */
	WorkerEntry entries[MAX_DATABASES];
} WorkersShared;

static WorkersShared *shared = NULL;

/* ------------------------------------------------------------------- memory */

bool
workers_are_shared(void)
{
	return shared != NULL;
}

Size
workers_shmem_size(void)
{
	return sizeof(WorkersShared);
}

void
workers_shmem_init(LWLock *lock)
{
	bool		found;

	shared = ShmemInitStruct("accessreq workers", sizeof(WorkersShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(WorkersShared));
		shared->lock = lock;
	}
}

/* The entry of a database, with the lock held; NULL where there is none. */
static WorkerEntry *
find(Oid database)
{
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		if (shared->entries[i].database == database)
			return &shared->entries[i];
	}
	return NULL;
}

static WorkerEntry *
find_or_make(Oid database)
{
	WorkerEntry *entry = find(database);

	if (entry == NULL && (entry = find(InvalidOid)) != NULL)
	{
		memset(entry, 0, sizeof(WorkerEntry));
		entry->database = database;
		entry->eligible = true;
	}
	return entry;
}

/* ------------------------------------------------------------------- latches */

static void
wake(int pid)
{
	PGPROC	   *proc = pid != 0 ? BackendPidGetProc(pid) : NULL;

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

static void
wake_launcher(void)
{
	wake(shared->launcher);
}

/* ----------------------------------------------------------------- the launcher */

static void
launcher_ends(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = 0;
	LWLockRelease(shared->lock);
}

void
workers_launcher_starts(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = MyProcPid;
	/* what the one before it was about to start is not known any more */
	for (int i = 0; i < MAX_DATABASES; i++)
		shared->entries[i].starting = false;
	LWLockRelease(shared->lock);
	before_shmem_exit(launcher_ends, (Datum) 0);
}

/* Databases that are gone are forgotten, with those that died for them. */
static void
forget_gone(List *databases)
{
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		WorkerEntry *entry = &shared->entries[i];
		bool		there = false;
		ListCell   *cell;

		if (!OidIsValid(entry->database))
			continue;
		foreach(cell, databases)
			there = there || ((WorkerDatabase *) lfirst(cell))->oid == entry->database;
		if (!there && entry->pid == 0)
			memset(entry, 0, sizeof(WorkerEntry));
		else if (entry->leaver != 0 && BackendPidGetProc(entry->leaver) == NULL)
			entry->leaver = 0;
	}
}

void
workers_note_databases(List *databases)
{
	static bool told = false;
	bool		full = false;
	ListCell   *cell;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	forget_gone(databases);
	foreach(cell, databases)
	{
		WorkerDatabase *database = lfirst(cell);
		WorkerEntry *entry = find_or_make(database->oid);

		if (entry == NULL)
		{
			full = true;
			continue;
		}
		entry->eligible = database->eligible;
		if (!entry->eligible)
			wake(entry->pid);
	}
	LWLockRelease(shared->lock);
	if (full && !told)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("accessreq runs workers in %d databases at most", MAX_DATABASES)));
	told = told || full;
}

/*
 * Those that are not probed yet one after another: there may be many, and each
 * takes one of max_worker_processes for a moment.
 */
Oid
workers_next_to_start(long *wait_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	WorkerEntry *next = NULL;
	bool		probing = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		WorkerEntry *entry = &shared->entries[i];

		if (entry->state == WORKER_UNPROBED && (entry->starting || entry->pid != 0))
			probing = true;
	}
	for (int i = 0; i < MAX_DATABASES && next == NULL; i++)
	{
		WorkerEntry *entry = &shared->entries[i];

		if (!OidIsValid(entry->database) || !entry->eligible || entry->starting ||
			entry->pid != 0 || entry->leaver != 0)
			continue;
		if (entry->state != WORKER_WANTED && (entry->state != WORKER_UNPROBED || probing))
			continue;
		if (entry->start_after > now)
			*wait_ms = Min(*wait_ms, (long) ((entry->start_after - now) / 1000 + 1));
		else
			next = entry;
	}
	if (next != NULL)
		next->starting = true;
	LWLockRelease(shared->lock);
	return next ? next->database : InvalidOid;
}

void
workers_reconsider(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		if (shared->entries[i].state == WORKER_DISABLED)
			shared->entries[i].state = WORKER_UNPROBED;
	}
	LWLockRelease(shared->lock);
}

/* With the lock held. */
static void
count_failure(WorkerEntry *entry)
{
	TimestampTz now = GetCurrentTimestamp();

	if (entry->started != 0 && now - entry->started > LIVED_LONG_US)
		entry->failures = 0;
	entry->start_after = now + Min(FIRST_PAUSE_US << Min(entry->failures, 10), LAST_PAUSE_US);
	entry->failures++;
}

void
workers_start_failed(Oid database, bool no_slot)
{
	WorkerEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find(database)) != NULL && entry->starting)
	{
		entry->starting = false;
		entry->no_slot = no_slot;
		count_failure(entry);
	}
	LWLockRelease(shared->lock);
}

/* ------------------------------------------------------------------ the workers */

static void
worker_ends(int code, Datum arg)
{
	WorkerEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find(DatumGetObjectId(arg))) != NULL && entry->pid == MyProcPid)
	{
		entry->pid = 0;
		if (code != 0)
			count_failure(entry);
		entry->started = 0;
		wake_launcher();
	}
	LWLockRelease(shared->lock);
}

/*
 * Before it connects, so that a command which wants the database does not
 * overlook it.
 */
bool
workers_enter(Oid database)
{
	WorkerEntry *entry;
	bool		may;

	if (shared == NULL)
		return true;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find_or_make(database);
	may = entry != NULL && entry->pid == 0 && entry->leaver == 0 &&
		entry->state != WORKER_STOPPED;
	if (may)
	{
		entry->pid = MyProcPid;
		entry->started = GetCurrentTimestamp();
		entry->no_slot = false;
		entry->asked = false;
		entry->at_work = false;
	}
	if (entry != NULL)
		entry->starting = false;
	LWLockRelease(shared->lock);
	if (may)
		before_shmem_exit(worker_ends, ObjectIdGetDatum(database));
	return may;
}

/*
 * What was asked for since this worker came is newer than what it saw; then
 * another one looks again.
 */
void
workers_set_state(WorkerState state)
{
	WorkerEntry *entry;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find(MyDatabaseId);
	if (entry != NULL && entry->state != WORKER_STOPPED &&
		(state == WORKER_WANTED || !entry->asked))
	{
		/* the next database may be probed now */
		if (entry->state == WORKER_UNPROBED)
			wake_launcher();
		entry->state = state;
	}
	if (entry != NULL && entry->pid == MyProcPid)
		entry->at_work = state == WORKER_WANTED;
	LWLockRelease(shared->lock);
}

bool
workers_must_leave(void)
{
	WorkerEntry *entry;
	bool		leave;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	entry = find(MyDatabaseId);
	leave = entry == NULL || entry->leaver != 0 || !entry->eligible ||
		entry->state == WORKER_STOPPED || entry->pid != MyProcPid;
	LWLockRelease(shared->lock);
	return leave;
}

static LOCKTAG
worker_lock(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, WORKER_LOCK);
	return tag;
}

bool
workers_lock(Oid extension)
{
	LOCKTAG		tag = worker_lock(extension);

	return compat_lock_held_by_me(&tag, ExclusiveLock) ||
		LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* -------------------------------------------------------------------- sessions */

/* As shared memory has it, where there is any. */
static int
shared_pid(void)
{
	WorkerEntry *entry;
	int			pid;

	LWLockAcquire(shared->lock, LW_SHARED);
	entry = find(MyDatabaseId);
	pid = entry != NULL && entry->at_work ? entry->pid : 0;
	LWLockRelease(shared->lock);
	return pid;
}

/*
 * Without shared memory a worker is found by its lock, in a copy of all the locks
 * that there are: that is slow where there are many.
 */
int
workers_pid(void)
{
	Oid			extension = get_extension_oid("accessreq", true);
	LOCKTAG		tag = worker_lock(extension);
	LockData   *locks;

	if (!OidIsValid(extension))
		return 0;
	if (shared != NULL)
		return shared_pid();
	locks = GetLockStatusData();
	for (int i = 0; i < locks->nelements; i++)
	{
		if (memcmp(&locks->locks[i].locktag, &tag, sizeof(tag)) == 0 &&
			(locks->locks[i].holdMask & LOCKBIT_ON(ExclusiveLock)))
			return locks->locks[i].pid;
	}
	return 0;
}

/* With the lock held: the reason that an entry tells. */
static char *
entry_why_not(const WorkerEntry *entry, bool *starting)
{
	TimestampTz now = GetCurrentTimestamp();

	if (entry == NULL || entry->state == WORKER_WITHOUT)
	{
		*starting = true;
		return pstrdup("the launcher has not seen the extension yet");
	}
	if (entry->state == WORKER_STOPPED)
		return pstrdup("stopped by accessreq.stop_worker()");
	if (entry->state == WORKER_UNSUITED)
		return pstrdup("the extension's version is not the library's: ALTER EXTENSION accessreq UPDATE, or a restart where the library is the older one");
	if (entry->leaver != 0)
		return psprintf("process %d runs a command that wants the database for itself", entry->leaver);
	if (entry->state == WORKER_DISABLED)
		return pstrdup("accessreq.enabled is off for this database");
	if (!entry->eligible)
		return pstrdup("the database is a template, or accessreq.enabled is off in the configuration");
	if (entry->no_slot)
		return pstrdup("all max_worker_processes are in use");
	*starting = true;
	if (entry->failures > 0 && entry->start_after > now)
		return psprintf("it ended %d times and is started again in %d s", entry->failures,
						(int) ((entry->start_after - now) / USECS_PER_SEC) + 1);
	return pstrdup("it is being started");
}

char *
workers_why_not(bool *starting)
{
	char	   *why;

	*starting = false;
	if (mode_why_no_worker() != NULL)
		return pstrdup(mode_why_no_worker());
	if (RecoveryInProgress())
		return pstrdup(GetRecoveryPauseState() == RECOVERY_NOT_PAUSED ?
					   "this server is a standby" :
					   "this server is in recovery, which is paused: pg_wal_replay_resume() goes on with it");
	if (!accessreq_enabled)
		return pstrdup("accessreq.enabled is off");
	if (shared == NULL)
		return pstrdup("accessreq is not in shared_preload_libraries: accessreq.start_worker() starts one until the next restart");
	LWLockAcquire(shared->lock, LW_SHARED);
	if (shared->launcher == 0)
	{
		*starting = true;
		why = pstrdup("the launcher does not run");
	}
	else
		why = entry_why_not(find(MyDatabaseId), starting);
	LWLockRelease(shared->lock);
	return why;
}

bool
workers_may_start(void)
{
	return mode_why_no_worker() == NULL && !RecoveryInProgress() && accessreq_enabled;
}

/* Tell the worker of a database, or the launcher that there is to be one. */
static void
wake_database(Oid database)
{
	WorkerEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find_or_make(database)) != NULL)
	{
		if (entry->state != WORKER_STOPPED)
			entry->state = WORKER_WANTED;
		entry->start_after = 0;
		entry->asked = true;
		wake(entry->pid);
		if (entry->pid == 0)
			wake_launcher();
	}
	LWLockRelease(shared->lock);
}

/* Databases to be woken at commit; of many in one transaction the first few. */
#define MAX_WAKES 8

static Oid	wakes[MAX_WAKES];
static int	nwakes = 0;
static int	wake_pid = 0;		/* without shared memory */

/* With a wake at once, so that its worker begins to look every second. */
static void
note_prepared(Oid database)
{
	WorkerEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find_or_make(database)) != NULL)
	{
		entry->prepared = true;
		wake(entry->pid);
	}
	LWLockRelease(shared->lock);
}

bool
workers_take_prepared(void)
{
	static bool first = true;
	WorkerEntry *entry;
	bool		prepared = first;

	first = false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find(MyDatabaseId)) != NULL)
	{
		prepared = prepared || entry->prepared;
		entry->prepared = false;
	}
	LWLockRelease(shared->lock);
	return prepared;
}

static void
on_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			for (int i = 0; i < nwakes; i++)
			{
				if (shared != NULL)
					wake_database(wakes[i]);
				else
					wake(wake_pid);
			}
			nwakes = 0;
			break;
		case XACT_EVENT_PREPARE:
			for (int i = 0; i < nwakes && shared != NULL; i++)
				note_prepared(wakes[i]);
			nwakes = 0;
			break;
		case XACT_EVENT_ABORT:
			nwakes = 0;
			break;
		default:
			break;
	}
}

/* A savepoint that is rolled back leaves a wake for nothing, which does no harm. */
bool
workers_wake_at_commit(Oid database)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(on_transaction_end, NULL);
	registered = true;
	if (shared == NULL)
		wake_pid = workers_pid();
	for (int i = 0; i < nwakes; i++)
	{
		if (wakes[i] == database)
			return false;
	}
	if (nwakes < MAX_WAKES)
		wakes[nwakes++] = database;
	return true;
}

void
workers_start_here(void)
{
	WorkerEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find_or_make(MyDatabaseId)) != NULL)
	{
		entry->state = WORKER_WANTED;
		entry->asked = true;
		entry->start_after = 0;
		entry->failures = 0;
		wake_launcher();
	}
	LWLockRelease(shared->lock);
}

void
workers_stop_here(void)
{
	WorkerEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find_or_make(MyDatabaseId)) != NULL)
	{
		entry->state = WORKER_STOPPED;
		wake(entry->pid);
	}
	LWLockRelease(shared->lock);
}

/* ------------------------------------------------ commands on whole databases */

/* Mark the entry; the pid of its worker, 0: none. */
static int
mark_leaving(Oid database)
{
	WorkerEntry *entry;
	int			pid = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find_or_make(database)) != NULL)
	{
		entry->leaver = MyProcPid;
		pid = entry->pid;
		wake(pid);
	}
	LWLockRelease(shared->lock);
	return pid;
}

/* Wait until a process is gone; false after the time. */
static bool
wait_for_end(int pid, long ms)
{
	TimestampTz end = GetCurrentTimestamp() + ms * 1000;

	while (BackendPidGetProc(pid) != NULL)
	{
		if (GetCurrentTimestamp() >= end)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LEAVE_POLL_MS, compat_wait_event(WAIT_LEAVE));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

void
workers_send_away(Oid database)
{
	int			pid;

	if (shared == NULL || (pid = mark_leaving(database)) == 0)
		return;
	if (wait_for_end(pid, LEAVE_MS))
		return;
	/* in the middle of a statement */
	(void) kill(pid, SIGTERM);
	(void) wait_for_end(pid, LEAVE_MS);
}

void
workers_let_return(Oid database)
{
	WorkerEntry *entry;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((entry = find(database)) != NULL && entry->leaver == MyProcPid)
	{
		entry->leaver = 0;
		entry->start_after = 0;
		wake_launcher();
	}
	LWLockRelease(shared->lock);
}
