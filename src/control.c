/*-------------------------------------------------------------------------
 *
 * control.c
 *	  SQL-callable: what the background does: start_sync, stop_sync,
 *	  start_worker, stop_worker, and how the views see it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "accessreq.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "identity.h"
#include "job.h"
#include "launcher.h"
#include "limiter.h"
#include "miscadmin.h"
#include "mode.h"
#include "session.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tenant.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "workers.h"

PG_FUNCTION_INFO_V1(accessreq_start_sync);
PG_FUNCTION_INFO_V1(accessreq_stop_sync);
PG_FUNCTION_INFO_V1(accessreq_start_worker);
PG_FUNCTION_INFO_V1(accessreq_stop_worker);
PG_FUNCTION_INFO_V1(accessreq_worker);
PG_FUNCTION_INFO_V1(accessreq_origin);
PG_FUNCTION_INFO_V1(accessreq_requests_left);

/* How long start_worker() and stop_worker() wait for what they asked for. */
#define CHANGE_MS 10000
#define CHANGE_POLL_MS 10

/* Shorter pauses between pulls would be a load and no help. */
#define MIN_INTERVAL_US USECS_PER_SEC

/* Longer ones than 100 years mean never, and would leave the range of times. */
#define MAX_INTERVAL_US (100 * DAYS_PER_YEAR * USECS_PER_DAY)

/* ------------------------------------------------------------------ start_sync */

static double
interval_us(const Interval *value)
{
	return value->time +
		(value->day + value->month * (DAYS_PER_YEAR / MONTHS_PER_YEAR)) * USECS_PER_DAY;
}

/*
 * An argument of type interval, or NULL; raises 22023 where it is too short, or
 * too long unless that means for ever.
 */
static const Interval *
interval_arg(FunctionCallInfo fcinfo, int argno, const char *name, bool *for_ever)
{
	const Interval *value;

	if (PG_ARGISNULL(argno))
		return NULL;
	value = PG_GETARG_INTERVAL_P(argno);
	if (interval_us(value) > MAX_INTERVAL_US && for_ever != NULL)
		*for_ever = true;
	else if (interval_us(value) < MIN_INTERVAL_US || interval_us(value) > MAX_INTERVAL_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must be between 1 second and 100 years", name)));
	return value;
}

/*
 * start_sync(server name, every, reconcile_every, keep interval, keep_raw bool):
 * keep a server fresh from the background, from the commit on.  A null argument
 * leaves what is there as it is.  Raises 42501 where the job is another's,
 * 55000 in a copy of the database, 22023 for an interval out of range, and
 * what a call would without the right to the server or a mapping.
 */
Datum
accessreq_start_sync(PG_FUNCTION_ARGS)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	JobSchedule schedule = {0};
	Oid			userid = GetUserId();
	Oid			serverid;
	bool		keep_raw;

	PreventCommandDuringRecovery("accessreq.start_sync()");
	PreventCommandIfReadOnly("accessreq.start_sync()");
	schedule.every = interval_arg(fcinfo, 1, "every", NULL);
	schedule.reconcile_every = interval_arg(fcinfo, 2, "reconcile_every", NULL);
	schedule.keep = interval_arg(fcinfo, 3, "keep", &schedule.keep_for_ever);
	keep_raw = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	schedule.keep_raw = PG_ARGISNULL(4) ? NULL : &keep_raw;
	serverid = session_resolve(name);
	tenant_check_usage(serverid, userid);
	tenant_check_mapping(serverid, userid);
	SPI_connect();
	job_enable(GetForeignServer(serverid)->servername, userid, &schedule);
	SPI_finish();
	workers_wake_at_commit(MyDatabaseId);
	session_warn_without_worker("no worker runs in this database, so nothing is pulled yet");
	PG_RETURN_VOID();
}

/*
 * stop_sync(server name): pull it no more from the background; what is under way
 * ends within a moment.  Raises 42704 where there is no job, 42501 where it is
 * another's.
 */
Datum
accessreq_stop_sync(PG_FUNCTION_ARGS)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));

	PreventCommandDuringRecovery("accessreq.stop_sync()");
	PreventCommandIfReadOnly("accessreq.stop_sync()");
	/* one that is named need not exist any more */
	if (name == NULL)
		name = GetForeignServer(tenant_resolve(NULL, GetUserId()))->servername;
	SPI_connect();
	job_disable(name);
	SPI_finish();
	workers_wake_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}

/* ----------------------------------------------------------------- the worker */

static void
nap(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 CHANGE_POLL_MS, compat_wait_event(WAIT_LEAVE));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
start_unshared(void)
{
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	if (!launcher_start_worker(MyDatabaseId, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("all background worker slots are in use"),
				 errhint("Raise max_worker_processes.")));
	(void) WaitForBackgroundWorkerStartup(handle, &pid);
	ereport(NOTICE,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg("the worker runs until it ends or the server restarts, and nobody starts it again"),
			 errdetail("Besides, each process counts requests for itself, and DROP DATABASE wants WITH (FORCE) while the worker runs."),
			 errhint("Add accessreq to shared_preload_libraries.")));
}

/*
 * start_worker(): start the worker of this database, if none runs.  Returns its
 * pid.  Raises 55000 where it does not come, with the reason, 53400 where there
 * is no slot, 25006 on a standby.
 */
Datum
accessreq_start_worker(PG_FUNCTION_ARGS)
{
	TimestampTz end = GetCurrentTimestamp() + CHANGE_MS * INT64CONST(1000);
	int			pid = workers_pid();
	bool		starting;

	PreventCommandDuringRecovery("accessreq.start_worker()");
	if (mode_why_no_worker() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no worker is started: %s", mode_why_no_worker())));
	if (pid != 0)
		PG_RETURN_INT32(pid);
	if (!accessreq_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no worker is started while accessreq.enabled is off")));
	if (workers_are_shared())
		workers_start_here();
	else
		start_unshared();
	while ((pid = workers_pid()) == 0 && GetCurrentTimestamp() < end)
	{
		/* what keeps it from running is no matter of time */
		char	   *why = workers_why_not(&starting);

		if (workers_are_shared() && !starting)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the worker does not run"),
					 errdetail_internal("%s", why)));
		nap();
	}
	if (pid == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker does not run"),
				 errhint("The server's log tells why. It needs the extension to be committed in this database.")));
	PG_RETURN_INT32(pid);
}

/*
 * stop_worker(): end the worker of this database, until start_worker() or a
 * restart of the server.
 */
Datum
accessreq_stop_worker(PG_FUNCTION_ARGS)
{
	TimestampTz end = GetCurrentTimestamp() + CHANGE_MS * INT64CONST(1000);
	int			pid = workers_pid();

	PreventCommandDuringRecovery("accessreq.stop_worker()");
	if (workers_are_shared())
		workers_stop_here();
	else if (pid != 0)
		(void) kill(pid, SIGTERM);
	while (pid != 0 && BackendPidGetProc(pid) != NULL)
	{
		if (GetCurrentTimestamp() > end)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the worker, process %d, has not ended yet", pid)));
		nap();
	}
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------ for the views */

/* worker(OUT pid integer, OUT state text): does it run, and why not? */
Datum
accessreq_worker(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {INT4OID, TEXTOID};
	Datum		values[2] = {0};
	bool		nulls[2] = {false, false};
	int			pid = workers_pid();
	bool		starting;

	nulls[0] = pid == 0;
	values[0] = Int32GetDatum(pid);
	values[1] = CStringGetTextDatum(pid != 0 ? "running" :
									psprintf("not running: %s", workers_why_not(&starting)));
	PG_RETURN_DATUM(session_one_row(fcinfo, columns, lengthof(columns), values, nulls));
}

/* origin(): which database this is, as sync_job.origin has it. */
Datum
accessreq_origin(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(identity_origin()));
}

/*
 * requests_left(server text, owner oid): how many requests are left in the
 * budget of this moment, null where nobody can say: there is no such server, no
 * mapping, no limit, or each process counts for itself.
 */
Datum
accessreq_requests_left(PG_FUNCTION_ARGS)
{
	const Tenant *tenant = tenant_peek(text_to_cstring(PG_GETARG_TEXT_PP(0)),
									   PG_GETARG_OID(1), CurrentMemoryContext);
	int			left;

	if (tenant == NULL || !limiter_is_shared())
		PG_RETURN_NULL();
	left = limiter_blocked(tenant) > 0 ? 0 : limiter_left(tenant);
	if (left < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(left);
}
