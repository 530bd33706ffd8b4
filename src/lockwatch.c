/*-------------------------------------------------------------------------
 *
 * lockwatch.c
 *	  Who is told that somebody's lock keeps a worker from its work.
 *
 * A worker waits for a lock for a second, does something else, and comes back.
 * That is nobody's concern where the lock goes by itself; but a table that stays
 * locked stops all pulls without an error.  So after a few tries it is logged,
 * once, and told to whoever asks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lockwatch.h"
#include "miscadmin.h"
#include "sql.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* It is told after so many tries; so long without one, and it is over. */
#define TRIES 4
#define QUIET_US (60 * USECS_PER_SEC)

static struct
{
	TimestampTz last;			/* when a try failed */
	int			tries;
	char		reason[256];	/* empty: not told yet */
}			watch;

/*
 * Whose lock of a table of ours it is.  The modes are those that keep writers
 * away; of rows and other objects nobody can say so much.
 */
static void
find_reason(void)
{
	SqlArgs		args = {0};

	strlcpy(watch.reason, "another session holds a lock on what is to be written", sizeof(watch.reason));
	sql_add_oid(&args, MyDatabaseId);
	if (sql_run("SELECT pg_catalog.format('table \"accessreq.%s\" is locked by %s (%s)', c.relname,"
				" coalesce('process ' || l.pid, 'a prepared transaction'), l.mode)"
				" FROM pg_catalog.pg_locks l"
				" JOIN pg_catalog.pg_class c ON c.oid = l.relation"
				" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'accessreq'"
				" WHERE l.database = $1 AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()"
				" AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
				" ORDER BY c.relkind = 'r' DESC, l.mode LIMIT 1", &args, SPI_OK_SELECT) > 0)
		strlcpy(watch.reason, sql_text(0, 1), sizeof(watch.reason));
}

/*
 * Nothing is locked for it but the catalogs, for reading; and those may be what is
 * locked.  In a subtransaction, so that its failure leaves the session's locks.
 */
static void
find_reason_in_transaction(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner;

	StartTransactionCommand();
	owner = CurrentResourceOwner;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		find_reason();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	MemoryContextSwitchTo(cxt);
}

void
lockwatch_failed(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now - watch.last > QUIET_US)
	{
		watch.tries = 0;
		watch.reason[0] = '\0';
	}
	watch.last = now;
	if (++watch.tries < TRIES || watch.reason[0] != '\0')
		return;
	find_reason_in_transaction();
	ereport(LOG,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("the worker waits for a lock: %s", watch.reason),
			 errdetail("It has tried %d times, for a second each, and goes on trying.", watch.tries)));
}

const char *
lockwatch_reason(void)
{
	if (watch.reason[0] == '\0' || GetCurrentTimestamp() - watch.last > QUIET_US)
		return NULL;
	return watch.reason;
}
