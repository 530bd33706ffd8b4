/*-------------------------------------------------------------------------
 *
 * pulls.c
 *	  The pulls of a database's jobs, side by side in its worker.
 *
 * Each enabled job is looked at when its time comes: its owner's rights, the
 * pull's lock, a token; then a cycle, or a full scan where one is due.  A scan
 * may take long, so cycles go on beside it and the tables stay fresh.
 *
 * One process carries them all: what a job has to wait for, be it its tenant,
 * the budget or a lock, is waited for together, and nothing of the database is
 * held meanwhile but the locks of the pulls.  Whatever goes wrong is one job's
 * misfortune, noted on its row; the others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "accessreq.h"
#include "action.h"
#include "footing.h"
#include "job.h"
#include "lib/ilist.h"
#include "lockwatch.h"
#include "loop.h"
#include "miscadmin.h"
#include "pulls.h"
#include "stored.h"
#include "token.h"
#include "unit.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * A Retry-After longer than this ends the run: it is noted on the job, and so
 * obeyed after a restart too.
 */
#define PATIENCE_US (30 * USECS_PER_SEC)

/* A lock that another holds is asked for again after this, doubled each time. */
#define FIRST_LOCK_PAUSE_US (250 * INT64CONST(1000))
#define LAST_LOCK_PAUSE_US (8 * USECS_PER_SEC)

/* After an error that could not even be noted. */
#define TROUBLE_PAUSE_US USECS_PER_SEC

/*
 * While there is work the jobs are looked at so often: a latch that wakes us
 * can be lost in the wait for a lock.
 */
#define LOOK_INTERVAL_US USECS_PER_SEC

/* What is too old is looked for so often, and deleted so many rows at a time. */
#define EXPIRE_INTERVAL_US USECS_PER_HOUR
#define EXPIRE_ROWS 1000

/* A run under way. */
typedef struct PullRun
{
	MemoryContext cxt;
	JobRun	   *run;
	LoopRun    *loop;			/* NULL: none is under way */
	bool		ask;			/* may it want another page? */
	int			put_back;		/* how often the first page was, in a row */
	TimestampTz store_after;
} PullRun;

/* A job, and its server while it is pulled. */
typedef struct PulledJob
{
	dlist_node	node;
	MemoryContext cxt;
	Pulls	   *pulls;
	Job			job;			/* as it was last read */
	bool		listed;			/* is it to be pulled at all? */
	bool		has_run;		/* in this process */
	TimestampTz not_before;		/* for this process' own reasons */
	TimestampTz expired_at;

	/* of one pull */
	MemoryContext pull_cxt;		/* NULL: none is under way */
	const Tenant *tenant;
	bool		locked;
	Call	   *token;			/* on its way */
	bool		token_came;
	bool		is_fit;			/* has the token, so that runs can begin */
	TimestampTz keep_since;		/* what is older is being deleted; DT_NOBEGIN */
	PullRun		cycle;
	PullRun		scan;
} PulledJob;

struct Pulls
{
	MemoryContext cxt;
	CallSet    *calls;
	dlist_head	jobs;
	bool		look;
	bool		worked;			/* since the jobs were looked at */
	TimestampTz looked_at;
	TimestampTz expired_at;		/* ended runs were looked at */
	bool		expiring;
};

/* ------------------------------------------------------------------- lifetime */

Pulls *
pulls_open(CallSet *calls)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "accessreq pulls",
											  ALLOCSET_DEFAULT_SIZES);
	Pulls	   *pulls = MemoryContextAllocZero(cxt, sizeof(Pulls));

	pulls->cxt = cxt;
	pulls->calls = calls;
	pulls->look = true;
	dlist_init(&pulls->jobs);
	return pulls;
}

void
pulls_look(Pulls *pulls)
{
	pulls->look = true;
}

static void
close_run(PullRun *r)
{
	if (r->loop == NULL)
		return;
	loop_close(r->loop);
	MemoryContextDelete(r->cxt);
	memset(r, 0, sizeof(PullRun));
}

/* Let go of what a pull has, without a word to the database but the lock's. */
static void
release(PulledJob *j)
{
	close_run(&j->cycle);
	close_run(&j->scan);
	if (j->token != NULL)
		call_free(j->token);
	if (j->locked)
		store_unlock_pull(j->tenant->serverid);
	if (j->pull_cxt != NULL)
		MemoryContextDelete(j->pull_cxt);
	j->pull_cxt = NULL;
	j->tenant = NULL;
	j->token = NULL;
	j->token_came = j->is_fit = j->locked = false;
}

static bool
is_under_way(const PulledJob *j)
{
	return j->pull_cxt != NULL;
}

static void
pause_job(PulledJob *j, int64 us)
{
	j->not_before = GetCurrentTimestamp() + us;
}

/* ------------------------------------------------------------------- its units */

/* Run a unit for a job. */
static ErrorData *
run_unit(PulledJob *j, UnitWork work, void *arg)
{
	j->pulls->worked = true;
	return unit_run(work, arg);
}

/* Why a run, or a whole pull, is over. */
typedef struct Failure
{
	PulledJob  *j;
	PullRun    *r;
	const char *message;
	int64		retry_us;
} Failure;

static void
note_failure(void *arg)
{
	Failure    *f = arg;

	job_fail_early(f->j->job.server, f->j->job.owner, f->message, f->retry_us);
}

static void
note_failed_run(void *arg)
{
	Failure    *f = arg;

	job_fail(f->r->run, f->message, 0, true);
}

static void
break_off(void *arg)
{
	Failure    *f = arg;

	if (f->j->cycle.loop != NULL)
		job_break_off(f->j->cycle.run, f->message);
	if (f->j->scan.loop != NULL)
		job_break_off(f->j->scan.run, f->message);
}

/* What creates and closes have done, of which no answer told. */
static void
settle_actions(void *arg)
{
	PulledJob  *j = arg;

	action_settle_by_rows(j->job.server);
}

static const char *
kind_name(PullKind kind)
{
	return kind == PULL_SCAN ? "full scan" : "cycle";
}

static void
log_failure(const PulledJob *j, const char *what, const char *message)
{
	ereport(LOG,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("%s of server \"%s\" failed: %s", what, j->job.server, message)));
}

/*
 * What kept a job from being pulled, noted on its row; the runs under way end,
 * and are taken up when it is over.
 */
static void
fail_job(PulledJob *j, const char *message, int64 retry_us)
{
	Failure		f = {j, NULL, message, retry_us};

	log_failure(j, "pull", message);
	if (unit_lost_locks())
		j->locked = false;
	if (j->cycle.loop != NULL || j->scan.loop != NULL)
		(void) run_unit(j, break_off, &f);
	release(j);
	j->pulls->look = true;
	if (run_unit(j, note_failure, &f) != NULL)
		pause_job(j, TROUBLE_PAUSE_US);
}

/*
 * A run whose unit failed at its commit, or whose end could not be written: its
 * loop is ahead of the tables and of no use any more.
 */
static void
fail_run(PulledJob *j, PullRun *r, const char *message)
{
	Failure		f = {j, r, message, 0};

	log_failure(j, kind_name(r->run->kind), message);
	if (run_unit(j, note_failed_run, &f) != NULL && run_unit(j, note_failure, &f) != NULL)
		pause_job(j, TROUBLE_PAUSE_US);
	j->pulls->look = true;
	close_run(r);
}

/* -------------------------------------------------------------- the jobs there are */

static PulledJob *
find_job(Pulls *pulls, const char *server)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
	{
		PulledJob  *j = dlist_container(PulledJob, node, iter.cur);

		if (strcmp(j->job.server, server) == 0)
			return j;
	}
	return NULL;
}

/* A job that is new here, or was another owner's, begins anew. */
static void
take_job(Pulls *pulls, const Job *job)
{
	PulledJob  *j = find_job(pulls, job->server);
	char	   *server,
			   *owner_name;

	if (j == NULL)
	{
		MemoryContext cxt = AllocSetContextCreate(pulls->cxt, "accessreq job",
												  ALLOCSET_SMALL_SIZES);

		j = MemoryContextAllocZero(cxt, sizeof(PulledJob));
		j->cxt = cxt;
		j->pulls = pulls;
		j->keep_since = DT_NOBEGIN;
		j->job.server = MemoryContextStrdup(cxt, job->server);
		j->job.owner_name = MemoryContextStrdup(cxt, job->owner_name);
		j->job.owner = job->owner;
		dlist_push_tail(&pulls->jobs, &j->node);
	}
	if (j->job.owner != job->owner)
		return;					/* the old one is let go first */
	server = j->job.server;
	owner_name = j->job.owner_name;
	if (strcmp(owner_name, job->owner_name) != 0)
	{
		pfree(owner_name);
		owner_name = MemoryContextStrdup(j->cxt, job->owner_name);
	}
	j->job = *job;
	j->job.server = server;
	j->job.owner_name = owner_name;
	j->listed = true;
}

static void
read_jobs(void *arg)
{
	Pulls	   *pulls = arg;
	List	   *jobs = job_list();
	ListCell   *cell;
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
		dlist_container(PulledJob, node, iter.cur)->listed = false;
	foreach(cell, jobs)
		take_job(pulls, lfirst(cell));
}

/* Jobs that are stopped, dropped, renamed or another's are let go. */
static void
drop_unlisted(Pulls *pulls)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pulls->jobs)
	{
		PulledJob  *j = dlist_container(PulledJob, node, iter.cur);

		if (j->listed)
			continue;
		if (is_under_way(j))
		{
			Failure		f = {j, NULL, "stopped", 0};

			(void) run_unit(j, break_off, &f);
		}
		release(j);
		dlist_delete(&j->node);
		MemoryContextDelete(j->cxt);
		/* it may be there again as another's */
		pulls->look = true;
	}
}

/*
 * A pull may take hours, and its owner lose the right to it meanwhile.  Raises
 * what the owner's own CALL sync would.
 */
static void
check_rights(void *arg)
{
	PulledJob  *j = arg;
	const Tenant *t;

	if (!j->job.may)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" has no EXECUTE on accessreq.start_sync() any more",
						j->job.owner_name)));
	job_check_has_server(j->job.server);
	t = tenant_open(tenant_resolve(j->job.server, j->job.owner), j->job.owner,
					CurrentMemoryContext);
	if (j->tenant != NULL && (t->serverid != j->tenant->serverid || t->umid != j->tenant->umid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" or its user mapping was dropped and created anew",
						j->job.server)));
}

static void
check_those_under_way(Pulls *pulls)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
	{
		PulledJob  *j = dlist_container(PulledJob, node, iter.cur);
		ErrorData  *error;

		if (!is_under_way(j))
			continue;
		error = unit_run(check_rights, j);
		if (error != NULL && !unit_error_passes(error))
			fail_job(j, error->message, 0);
	}
}

static void
look_at_jobs(Pulls *pulls)
{
	ErrorData  *error;

	pulls->look = false;
	pulls->worked = false;
	pulls->looked_at = GetCurrentTimestamp();
	error = unit_run(read_jobs, pulls);
	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL)
	{
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not read the jobs of this database: %s", error->message)));
		pulls->worked = true;	/* look again in a second */
		return;
	}
	drop_unlisted(pulls);
	check_those_under_way(pulls);
}

/* -------------------------------------------------------------- a pull begins */

/*
 * The owner's rights, the server, the mapping, the pull's lock: everything that
 * may have changed since the last time.  Raises what the owner's own CALL sync
 * would.
 */
static void
begin_pull(void *arg)
{
	PulledJob  *j = arg;
	Pulls	   *pulls = j->pulls;
	CallSpec	spec = {0};
	Oid			serverid;

	check_rights(j);
	serverid = tenant_resolve(j->job.server, j->job.owner);
	j->pull_cxt = AllocSetContextCreate(pulls->cxt, "accessreq pulled server",
										ALLOCSET_SMALL_SIZES);
	j->tenant = tenant_open(serverid, j->job.owner, j->pull_cxt);
	j->locked = store_lock_pull(serverid, false);
	if (!j->locked)
		return;
	spec.tenant = j->tenant;
	spec.patient = true;
	spec.patience_us = PATIENCE_US;
	spec.share = CALL_OF_PULL;
	j->token = call_start_token(pulls->calls, &spec);
}

static void
start_run(PulledJob *j, PullRun *r, PullKind kind, const PullRun *beside)
{
	MemoryContext old;

	r->cxt = AllocSetContextCreate(j->pull_cxt, "accessreq run", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(r->cxt);
	r->run = job_begin(j->tenant, kind, false, beside->loop ? beside->run->run_id : 0);
	footing_note(r->run, j->tenant,
				 "accessreq.start_sync(name, interval, interval, interval, boolean)");
	if (kind == PULL_SCAN || !j->has_run)
		job_count_ahead(r->run);
	r->loop = loop_open(j->tenant, j->pulls->calls, r->run, PATIENCE_US);
	r->ask = true;
	MemoryContextSwitchTo(old);
	ereport(kind == PULL_SCAN ? LOG : DEBUG1,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg("%s of server \"%s\" started", kind_name(kind), j->job.server)));
}

/* A cycle goes on from what a scan has found. */
static bool
wants_cycle(const PulledJob *j)
{
	return j->cycle.loop == NULL && !j->job.first &&
		j->job.next_attempt_at <= GetCurrentTimestamp();
}

static bool
wants_scan(const PulledJob *j)
{
	TimestampTz now = GetCurrentTimestamp();

	return j->scan.loop == NULL && j->job.scan_at <= now && j->job.next_attempt_at <= now;
}

/* There is a token: it may be another tenant's. */
static void
claim(void *arg)
{
	PulledJob  *j = arg;

	j->is_fit = job_claim(j->tenant, token_tenant(j->tenant), false).is_owner;
}

static void
start_what_is_due(void *arg)
{
	PulledJob  *j = arg;

	if (wants_cycle(j))
		start_run(j, &j->cycle, PULL_CYCLE, &j->scan);
	if (wants_scan(j))
		start_run(j, &j->scan, PULL_SCAN, &j->cycle);
}

static void
note_blocked(void *arg)
{
	PulledJob  *j = arg;

	job_note_blocked(j->job.server, lockwatch_reason());
}

/* Once somebody's lock has kept it waiting for a while the job's row says so. */
static void
tell_of_lock(PulledJob *j)
{
	if (lockwatch_reason() != NULL)
		(void) run_unit(j, note_blocked, j);
}

/* A table is locked: later. */
static void
put_off(PulledJob *j)
{
	tell_of_lock(j);
	pause_job(j, FIRST_LOCK_PAUSE_US);
}

/* A pull that cannot begin: later, or a failure. */
static void
end_beginning(PulledJob *j, const ErrorData *error)
{
	if (unit_error_passes(error))
	{
		release(j);
		put_off(j);
	}
	else
		fail_job(j, error->message, 0);
}

static void
begin(PulledJob *j)
{
	ErrorData  *error = run_unit(j, begin_pull, j);

	if (error != NULL)
		end_beginning(j, error);
	else if (is_under_way(j) && !j->locked)
	{
		/* a session pulls it now: that is as good */
		release(j);
		pause_job(j, USECS_PER_SEC);
		j->pulls->look = true;
	}
}

static void
take_token(PulledJob *j)
{
	const ApiError *failed = call_error(j->token);
	ErrorData  *error;

	j->token_came = false;
	if (failed != NULL)
	{
		fail_job(j, pstrdup(failed->message), call_limited_us(j->token));
		return;
	}
	call_free(j->token);
	j->token = NULL;
	error = run_unit(j, claim, j);
	if (error != NULL)
		end_beginning(j, error);
	else if (!j->is_fit)
	{
		release(j);
		j->pulls->look = true;
	}
}

static void
start_runs(PulledJob *j)
{
	bool		had_cycle = j->cycle.loop != NULL;
	bool		had_scan = j->scan.loop != NULL;
	ErrorData  *error = run_unit(j, start_what_is_due, j);

	if (error == NULL)
	{
		j->has_run = j->has_run || j->cycle.loop != NULL || j->scan.loop != NULL;
		return;
	}
	/* what was begun in a transaction that is undone has no row */
	if (!had_cycle)
		close_run(&j->cycle);
	if (!had_scan)
		close_run(&j->scan);
	if (unit_error_passes(error))
		put_off(j);
	else
		fail_job(j, error->message, 0);
}

/* ------------------------------------------------------------------- a run goes on */

static void
ask_for_pages(void *arg)
{
	loop_fetch(((PullRun *) arg)->loop);
}

typedef struct Storing
{
	PullRun    *r;
	ErrorData  *error;
	MemoryContext cxt;
} Storing;

static void
store_a_page(void *arg)
{
	Storing    *s = arg;
	MemoryContext old = MemoryContextSwitchTo(s->cxt);

	s->error = loop_store(s->r->loop);
	MemoryContextSwitchTo(old);
}

static void
put_back(PulledJob *j, PullRun *r)
{
	int64		pause = Min(FIRST_LOCK_PAUSE_US << Min(r->put_back, 10), LAST_LOCK_PAUSE_US);

	tell_of_lock(j);
	r->put_back++;
	r->store_after = GetCurrentTimestamp() + pause;
}

static void
store_page_of(PulledJob *j, PullRun *r)
{
	Storing		s = {r, NULL, CurrentMemoryContext};
	JobRun		before = *r->run;
	ErrorData  *error = run_unit(j, store_a_page, &s);

	if (unit_ground() != UNIT_OK)
		return;
	if (error == NULL && s.error == NULL)
	{
		r->put_back = 0;
		r->ask = true;
		return;
	}
	if (error != NULL)
	{
		*r->run = before;
		if (unit_error_passes(error))
			put_back(j, r);
		else
			fail_run(j, r, error->message);
	}
	else if (unit_error_passes(s.error))
	{
		if (s.error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			lockwatch_failed();
		put_back(j, r);
	}
	else
		loop_fail(r->loop, s.error->message);
}

static void
finish_run(void *arg)
{
	loop_finish(((PullRun *) arg)->loop);
}

static void
log_end(const PulledJob *j, const PullRun *r)
{
	const JobRun *run = r->run;
	bool		quiet = run->kind == PULL_CYCLE && run->counts.added + run->counts.changed == 0;

	if (loop_end(r->loop) == LOOP_FAILED)
		log_failure(j, kind_name(run->kind), loop_error(r->loop));
	else
		ereport(quiet ? DEBUG1 : LOG,
				(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
				 errmsg("%s of server \"%s\" finished: " INT64_FORMAT " rows, " INT64_FORMAT " new, "
						INT64_FORMAT " changed, " INT64_FORMAT " missing, " INT64_FORMAT " requests",
						kind_name(run->kind), j->job.server, run->counts.seen,
						run->counts.added, run->counts.changed, run->missing, run->calls.requests),
				 run->short_rows < 0 ?
				 errdetail("The tenant's X-Total-Count cannot be so, so nothing was marked missing.") :
				 run->short_rows > 0 ?
				 errdetail("The tenant counts " INT64_FORMAT " rows more than it returned, so nothing was marked missing.",
						   run->short_rows) : 0));
}

/* Has it changed what is known of any? */
static bool
tells_of_closes(const JobRun *run)
{
	return run->kind == PULL_SCAN || run->counts.added + run->counts.changed > 0;
}

static void
end_run(PulledJob *j, PullRun *r)
{
	JobRun		before = *r->run;
	ErrorData  *error = run_unit(j, finish_run, r);
	TimestampTz now = GetCurrentTimestamp();

	if (unit_ground() != UNIT_OK)
		return;
	if (error != NULL)
	{
		*r->run = before;
		if (unit_error_passes(error))
			put_back(j, r);
		else
			fail_run(j, r, error->message);
		return;
	}
	j->pulls->look = true;
	log_end(j, r);
	if (loop_end(r->loop) == LOOP_SUCCEEDED && r->run->keep_since != DT_NOBEGIN &&
		now - j->expired_at > EXPIRE_INTERVAL_US)
		j->keep_since = r->run->keep_since;
	/* with an error they are met after the next run */
	if (loop_end(r->loop) == LOOP_SUCCEEDED && tells_of_closes(r->run))
		(void) run_unit(j, settle_actions, j);
	if (now - j->pulls->expired_at > EXPIRE_INTERVAL_US)
		j->pulls->expiring = true;
	close_run(r);
}

/* One step of a run: ask, store a page, or end. */
static void
step(PulledJob *j, PullRun *r)
{
	bool		may_store = r->store_after <= GetCurrentTimestamp();

	if (r->ask && may_store && loop_end(r->loop) == LOOP_GOES_ON)
	{
		ErrorData  *error;

		r->ask = false;
		error = run_unit(j, ask_for_pages, r);
		if (unit_ground() != UNIT_OK)
			return;
		/* the pull moves on when it is told, so it can be done again */
		if (error != NULL && unit_error_passes(error))
		{
			r->ask = true;
			put_back(j, r);
			return;
		}
		if (error != NULL)
			loop_fail(r->loop, error->message);
	}
	if (loop_end(r->loop) != LOOP_FAILED && loop_has_page(r->loop))
	{
		if (may_store)
			store_page_of(j, r);
	}
	else if (loop_end(r->loop) != LOOP_GOES_ON && may_store)
		end_run(j, r);
}

/* ------------------------------------------------------------ what is too old */

static void
expire_rows(void *arg)
{
	PulledJob  *j = arg;

	store_lock_page(j->tenant->serverid);
	if (stored_expire(j->job.server, j->keep_since, EXPIRE_ROWS) < EXPIRE_ROWS)
	{
		j->keep_since = DT_NOBEGIN;
		j->expired_at = GetCurrentTimestamp();
	}
}

static void
expire_runs(void *arg)
{
	Pulls	   *pulls = arg;

	if (job_expire_runs(EXPIRE_ROWS) == 0)
		pulls->expiring = false;
}

/* A batch; after an error not before the next hour. */
static void
expire_some(PulledJob *j)
{
	if (run_unit(j, expire_rows, j) == NULL)
		return;
	j->keep_since = DT_NOBEGIN;
	j->expired_at = GetCurrentTimestamp();
}

static void
expire_some_runs(Pulls *pulls)
{
	pulls->expired_at = GetCurrentTimestamp();
	if (unit_run(expire_runs, pulls) != NULL)
		pulls->expiring = false;
}

/* ---------------------------------------------------------------------- a turn */

static void
turn_job(PulledJob *j)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!is_under_way(j) && j->not_before <= now && (wants_cycle(j) || wants_scan(j)))
		begin(j);
	if (j->token_came)
		take_token(j);
	if (j->is_fit && j->not_before <= now && (wants_cycle(j) || wants_scan(j)) && !j->pulls->look)
		start_runs(j);
	if (j->cycle.loop != NULL)
		step(j, &j->cycle);
	if (j->scan.loop != NULL)
		step(j, &j->scan);
	if (j->is_fit && j->keep_since != DT_NOBEGIN)
		expire_some(j);
	else if (j->is_fit && j->cycle.loop == NULL && j->scan.loop == NULL && !j->pulls->look &&
			 !wants_cycle(j) && !wants_scan(j))
		release(j);
}

static PulledJob *
find_by_token(Pulls *pulls, const Call *call)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
	{
		PulledJob  *j = dlist_container(PulledJob, node, iter.cur);

		if (j->token == call)
			return j;
	}
	return NULL;
}

/* A run that got a page may want another. */
static void
let_ask(Pulls *pulls, const LoopRun *loop)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
	{
		PulledJob  *j = dlist_container(PulledJob, node, iter.cur);

		j->cycle.ask = j->cycle.ask || j->cycle.loop == loop;
		j->scan.ask = j->scan.ask || j->scan.loop == loop;
	}
}

void
pulls_take(Pulls *pulls, Call *call)
{
	PulledJob  *j = find_by_token(pulls, call);

	if (j != NULL)
		j->token_came = true;
	else
		let_ask(pulls, loop_take(call));
}

bool
pulls_are_under_way(Pulls *pulls)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
	{
		if (is_under_way(dlist_container(PulledJob, node, iter.cur)))
			return true;
	}
	return false;
}

void
pulls_give_up(Pulls *pulls)
{
	Failure		f = {NULL, NULL, "interrupted", 0};
	dlist_iter	iter;

	dlist_foreach(iter, &pulls->jobs)
	{
		PulledJob  *j = dlist_container(PulledJob, node, iter.cur);

		if (!is_under_way(j))
			continue;
		f.j = j;
		if (unit_lost_locks())
			j->locked = false;
		(void) unit_run(break_off, &f);
		release(j);
		pause_job(j, TROUBLE_PAUSE_US);
	}
	unit_forget_lost_locks();
	pulls->look = true;
}

/* A scan waits for the time of a cycle, unless there are none yet. */
static TimestampTz
due_at(const PulledJob *j)
{
	return j->job.first ? Max(j->job.next_attempt_at, j->job.scan_at) : j->job.next_attempt_at;
}

/* When a job wants something, the network apart. */
static long
job_waits(const PulledJob *j, TimestampTz now)
{
	long		wait = -1;

	if (j->token_came || (j->is_fit && j->keep_since != DT_NOBEGIN))
		return 0;
	for (int i = 0; i < 2; i++)
	{
		const PullRun *r = i == 0 ? &j->cycle : &j->scan;

		if (r->loop == NULL)
			continue;
		if (r->ask || loop_has_page(r->loop) || loop_end(r->loop) != LOOP_GOES_ON)
			wait = unit_sooner(wait, unit_ms_until(r->store_after, now));
	}
	/* its next time: while it is being pulled that is a cycle's beside a scan */
	if (!is_under_way(j))
		wait = unit_sooner(wait, unit_ms_until(Max(due_at(j), j->not_before), now));
	else if (j->is_fit && j->cycle.loop == NULL && !j->job.first)
		wait = unit_sooner(wait, unit_ms_until(Max(j->job.next_attempt_at, j->not_before), now));
	else if (j->is_fit && j->scan.loop == NULL && j->job.first)
		wait = unit_sooner(wait, unit_ms_until(Max(due_at(j), j->not_before), now));
	return wait;
}

long
pulls_wait(Pulls *pulls)
{
	TimestampTz now = GetCurrentTimestamp();
	long		wait = -1;
	dlist_iter	iter;

	if (pulls->look || pulls->expiring)
		return 0;
	if (pulls->worked)
		wait = unit_ms_until(pulls->looked_at + LOOK_INTERVAL_US, now);
	dlist_foreach(iter, &pulls->jobs)
		wait = unit_sooner(wait, job_waits(dlist_container(PulledJob, node, iter.cur), now));
	return wait;
}

void
pulls_turn(Pulls *pulls)
{
	dlist_iter	iter;

	if (pulls->look ||
		(pulls->worked && GetCurrentTimestamp() - pulls->looked_at >= LOOK_INTERVAL_US))
		look_at_jobs(pulls);
	dlist_foreach(iter, &pulls->jobs)
	{
		if (unit_ground() != UNIT_OK)
			return;
		turn_job(dlist_container(PulledJob, node, iter.cur));
		/* a transaction that failed as a whole took the locks of all pulls along */
		if (unit_lost_locks())
			pulls_give_up(pulls);
		CHECK_FOR_INTERRUPTS();
	}
	if (pulls->expiring)
		expire_some_runs(pulls);
	if (unit_lost_locks())
		pulls_give_up(pulls);
}
