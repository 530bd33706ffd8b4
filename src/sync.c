/*-------------------------------------------------------------------------
 *
 * sync.c
 *	  SQL-callable: what stores rows from a session: sync, refresh.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "action.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "footing.h"
#include "funcapi.h"
#include "loop.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "requests.h"
#include "row.h"
#include "session.h"
#include "stored.h"
#include "token.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(accessreq_refresh);
PG_FUNCTION_INFO_V1(accessreq_sync);

/* Rows that are deleted in one transaction. */
#define EXPIRE_ROWS 1000

/* Progress of a pull is told at most so often. */
#define NOTICE_INTERVAL_US USECS_PER_SEC

static void
put_refreshed(void *arg, const StoreOutcome *outcome)
{
	FunctionCallInfo fcinfo = (FunctionCallInfo) arg;
	Datum		values[4] = {0};
	bool		nulls[4] = {0};

	values[0] = session_text_datum(outcome->account_activity_item_id, &nulls[0]);
	values[1] = session_text_datum(outcome->access_request_id, &nulls[1]);
	values[2] = session_text_datum(outcome->old_state, &nulls[2]);
	values[3] = session_text_datum(outcome->new_state, &nulls[3]);
	session_put_row(fcinfo, values, nulls);
}

/* refresh(access_request_ids text[], server name) */
Datum
accessreq_refresh(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	int			nids;
	char	  **ids = session_ids_arg(fcinfo, 0, &nids);
	Session    *session;

	PreventCommandDuringRecovery("accessreq.refresh()");
	PreventCommandIfReadOnly("accessreq.refresh()");
	session_begin_rows(fcinfo, columns, lengthof(columns));
	session = session_open(fcinfo, 1, CurTransactionContext);
	if (nids > 0)
	{
		const ApiError *error = call_fetch_token(session->calls, session->tenant, false);

		if (error != NULL)
			api_error_raise(error);
		SPI_connect();
		requests_refresh(session->tenant, token_tenant(session->tenant), session->calls,
						 (const char *const *) ids, nids, put_refreshed, fcinfo);
		action_settle_by_rows(session->tenant->server);
		SPI_finish();
	}
	session_close(session);
	return (Datum) 0;
}

typedef struct SyncNotice
{
	int64		started;
	int64		last;
	int64		seen_before;	/* by the run that this one takes up */
} SyncNotice;

static int64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/* 12500 as "12,500". */
static char *
grouped(int64 n)
{
	char	   *digits = psprintf(INT64_FORMAT, n);
	int			len = strlen(digits);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < len; i++)
	{
		if (i > 0 && (len - i) % 3 == 0)
			appendStringInfoChar(&buf, ',');
		appendStringInfoChar(&buf, digits[i]);
	}
	return buf.data;
}

static void
tell_progress(SyncNotice *notice, PullProgress p)
{
	int64		now = now_us();
	double		rate;

	if (now - notice->last < NOTICE_INTERVAL_US)
		return;
	notice->last = now;
	rate = (double) (p.seen - notice->seen_before) * USECS_PER_SEC / (now - notice->started);
	if (p.total >= p.seen && p.total > 0 && rate > 0)
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("pulled %s of %s (%d%%), %s rows/s, %.0f s left",
						grouped(p.seen), grouped(p.total), (int) (p.seen * 100 / p.total),
						grouped((int64) rate), (p.total - p.seen) / rate)));
	else
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("pulled %s, %s rows/s", grouped(p.seen), grouped((int64) rate))));
}

/*
 * One pull of a server at a time: wait for the one before us, and say so.
 * True where it had to wait.
 */
static bool
lock_pull(const Tenant *tenant)
{
	int			pid;

	if (store_lock_pull(tenant->serverid, false))
		return false;
	pid = job_running_pid(tenant->serverid);
	SPI_commit();
	ereport(NOTICE,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 pid != 0 ?
			 errmsg("waiting for the pull of server \"%s\" by process %d to end", tenant->server, pid) :
			 errmsg("waiting for another pull of server \"%s\" to end", tenant->server)));
	(void) store_lock_pull(tenant->serverid, true);
	return true;
}

/*
 * The session of a pull, with the pull's lock.  After a wait everything is
 * looked at again: the server may have been altered or dropped, rights revoked.
 */
static Session *
open_pull(FunctionCallInfo fcinfo, MemoryContext cxt)
{
	Session    *session = session_open(fcinfo, 0, cxt);

	/* before a token is asked for */
	job_check_origin(session->tenant->server);
	/* from here on nothing is held while we wait, but the pull's lock */
	SPI_commit();
	while (lock_pull(session->tenant))
	{
		Oid			locked = session->tenant->serverid;

		session_close(session);
		SPI_commit();			/* a new transaction sees what others did */
		session = session_open(fcinfo, 0, cxt);
		SPI_commit();
		if (session->tenant->serverid == locked)
			break;
		store_unlock_pull(locked);
	}
	return session;
}

/* An interrupted scan goes on: the windows that it has stored are not read again. */
static void
tell_resumed(int64 seen)
{
	if (seen > 0)
		ereport(NOTICE,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("going on with an interrupted pull that has read %s rows", grouped(seen)),
				 errhint("full_scan => true starts anew.")));
}

static void
tell_result(const JobRun *run)
{
	ereport(NOTICE,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg("pulled %s rows: %s new, %s changed%s%s",
					grouped(run->counts.seen), grouped(run->counts.added),
					grouped(run->counts.changed),
					run->missing > 0 ? psprintf(", %s missing", grouped(run->missing)) : "",
					run->counts.quarantined > 0 ?
					psprintf(", %s quarantined", grouped(run->counts.quarantined)) : "")));
}

static void
warn_if_short(const JobRun *run)
{
	if (run->short_rows > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("the tenant of server \"%s\" counts %s rows more than it returned", run->server,
						grouped(run->short_rows)),
				 errdetail("It was asked twice, by id and by offset. Nothing was marked missing.")));
	else if (run->short_rows < 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("nobody can say whether the tenant of server \"%s\" returned all rows", run->server),
				 errdetail("Its X-Total-Count cannot be so. Nothing was marked missing.")));
}

/*
 * Store what has come.  An error of the database ends the run, which says so;
 * a cancel or a termination leaves it to be taken up.
 */
static void
store_pages(LoopRun *loop)
{
	while (loop_has_page(loop))
	{
		ErrorData  *error = loop_store(loop);

		if (error == NULL)
		{
			SPI_commit();
			if (loop_end(loop) == LOOP_FAILED)
				return;
			continue;
		}
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) !=
			ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION))
		{
			loop_fail(loop, error->message);
			loop_finish(loop);
			SPI_commit();
		}
		ReThrowError(error);
	}
}

/*
 * What is older than it is to be kept goes, in batches that are committed one by
 * one, so that nobody waits for long.
 */
static void
clear_up(const Session *session, const JobRun *run)
{
	int64		n = 0;

	if (!run->is_owner)
		return;
	do
	{
		if (run->keep_since != DT_NOBEGIN)
		{
			store_lock_page(session->tenant->serverid);
			n = stored_expire(run->server, run->keep_since, EXPIRE_ROWS);
			SPI_commit();
		}
		CHECK_FOR_INTERRUPTS();
	} while (n >= EXPIRE_ROWS);
	while (job_expire_runs(EXPIRE_ROWS) > 0)
		SPI_commit();
	SPI_commit();
}

static JobRun *
begin_run(const Session *session, PullKind kind, bool fresh)
{
	JobRun	   *run = job_begin(session->tenant, kind, fresh, 0);

	footing_note(run, session->tenant, "accessreq.sync(name, boolean, boolean)");
	return run;
}

/* One run from its beginning to its end. */
static void
pull(Session *session, PullKind kind, bool fresh)
{
	JobRun	   *run = begin_run(session, kind, fresh);
	LoopRun    *loop = loop_open(session->tenant, session->calls, run, 0);
	SyncNotice	notice;

	SPI_commit();
	notice.started = notice.last = now_us();
	notice.seen_before = loop_progress(loop).seen;
	tell_resumed(notice.seen_before);
	for (;;)
	{
		loop_fetch(loop);
		/* what the pull read here is over before the network is waited for */
		SPI_commit();
		if (loop_end(loop) != LOOP_GOES_ON)
			break;
		(void) loop_take(call_wait(session->calls));
		CHECK_FOR_INTERRUPTS();
		/* the next page is on its way while this one is stored */
		if (loop_end(loop) == LOOP_GOES_ON)
			loop_fetch(loop);
		store_pages(loop);
		tell_progress(&notice, loop_progress(loop));
	}
	loop_finish(loop);
	SPI_commit();
	if (loop_end(loop) == LOOP_FAILED)
		loop_raise(loop);
	tell_result(run);
	warn_if_short(run);
	action_settle_by_rows(run->server);
	SPI_commit();
	clear_up(session, run);
	loop_close(loop);
}

/* The token, for which a pull waits in full; the job hears of a failure. */
static void
fetch_token(Session *session)
{
	const ApiError *error = call_fetch_token(session->calls, session->tenant, true);

	if (error == NULL)
		return;
	job_fail_early(session->tenant->server, session->tenant->userid, error->message, 0);
	SPI_commit();
	api_error_raise(error);
}

/*
 * A cycle, and a scan where one is due; only a scan where none has ever ended
 * well, or who calls is not the job's owner.
 */
static void
pull_what_is_due(Session *session, bool full_scan, bool beside_archive)
{
	JobDue		due = job_claim(session->tenant, token_tenant(session->tenant), beside_archive);

	if (due.is_owner && !due.first && !full_scan)
		pull(session, PULL_CYCLE, true);
	if (due.scan || full_scan)
		pull(session, PULL_SCAN, full_scan);
}

/*
 * sync(server name, full_scan bool, beside_archive bool): pull now, in this
 * session.  Commits page by page, so nothing is held while it waits for the tenant.
 * Raises 55000 where rows of the tenant have a name that no server has any more,
 * unless they are an archive.
 */
Datum
accessreq_sync(PG_FUNCTION_ARGS)
{
	Session    *session;
	bool		full_scan = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	bool		beside_archive = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	MemoryContext cxt,
				old;

	session_check_may_commit(fcinfo, "accessreq.sync",
							 "It commits each page together with its place in the pull.");
	PreventCommandDuringRecovery("accessreq.sync");
	PreventCommandIfReadOnly("accessreq.sync");
	/* the transaction's context would not survive the first commit */
	cxt = AllocSetContextCreate(PortalContext, "accessreq sync", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	MemoryContextSwitchTo(cxt);
	session = open_pull(fcinfo, cxt);
	fetch_token(session);
	pull_what_is_due(session, full_scan, beside_archive);
	store_unlock_pull(session->tenant->serverid);
	SPI_finish();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	PG_RETURN_VOID();
}
