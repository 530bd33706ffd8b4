/*-------------------------------------------------------------------------
 *
 * unit.c
 *	  A unit of a worker's work: one short transaction.
 *
 * The work is done in a subtransaction, because the abort of a whole
 * transaction would take the session's locks along, that of the worker and
 * those of the pulls under way.  Where the transaction fails all the same, at
 * its commit, that is told.
 *
 * Each begins by making sure that the extension is still there and the same:
 * the lock on it holds off DROP EXTENSION until the end of the unit, and not
 * for longer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "compat.h"
#include "dbsetting.h"
#include "executor/spi.h"
#include "lockwatch.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "unit.h"
#include "utils/snapmgr.h"
#include "version.h"
#include "workers.h"

static UnitGround ground = UNIT_OK;
static bool locks_lost = false;
static bool settings_changed = false;
static bool winding_up = false;

/* The one that the first unit found. */
static Oid	known_extension = InvalidOid;

UnitGround
unit_ground(void)
{
	return ground;
}

void
unit_settings_changed(void)
{
	settings_changed = true;
	ground = UNIT_CHANGED;
}

void
unit_wind_up(void)
{
	winding_up = true;
	ground = UNIT_OK;
}

bool
unit_lost_locks(void)
{
	return locks_lost;
}

void
unit_forget_lost_locks(void)
{
	locks_lost = false;
}

bool
unit_error_passes(const ErrorData *error)
{
	if (locks_lost)
		return false;
	switch (error->sqlerrcode)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_QUERY_CANCELED:
			return true;
		default:
			return false;
	}
}

long
unit_sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a : Min(a, b);
}

long
unit_ms_until(TimestampTz when, TimestampTz now)
{
	if (when <= now)
		return 0;
	return (long) Min((when - now) / 1000 + 1, INT_MAX);
}

static UnitGround
look_at_ground(void)
{
	Oid			extension = get_extension_oid("accessreq", true);

	if (!OidIsValid(extension))
		return UNIT_NO_EXTENSION;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	if (get_extension_oid("accessreq", true) != extension)
		return UNIT_NO_EXTENSION;
	if (!OidIsValid(known_extension))
		known_extension = extension;
	if (extension != known_extension)
		return UNIT_NO_EXTENSION;
	if (!version_is_ours(extension))
		return UNIT_UNSUITED;
	if (!winding_up && !dbsetting_is_on("accessreq.enabled", true))
		return UNIT_DISABLED;
	if (!winding_up && settings_changed)
		return UNIT_CHANGED;
	return workers_lock(extension) ? UNIT_OK : UNIT_ANOTHER_WORKER;
}

/* The error, or NULL; the transaction stands in either case. */
static ErrorData *
run_in_subtransaction(UnitWork work, void *arg, MemoryContext cxt)
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		ground = look_at_ground();
		if (ground == UNIT_OK)
			work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	return error;
}

static ErrorData *
run_in_transaction(UnitWork work, void *arg, MemoryContext cxt)
{
	ErrorData  *error;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	error = run_in_subtransaction(work, arg, cxt);
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	return error;
}

ErrorData *
unit_run(UnitWork work, void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	pgstat_report_activity(STATE_RUNNING, "working");
	PG_TRY();
	{
		error = run_in_transaction(work, arg, cxt);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		locks_lost = true;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (error != NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && !locks_lost)
		lockwatch_failed();
	MemoryContextSwitchTo(cxt);
	(void) pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}
