/*-------------------------------------------------------------------------
 *
 * job.h
 *	  The rows of sync_job and sync_run: whose pull it is, what is due, where
 *	  it stands, and how it ended.
 *
 * All of this runs in the current transaction, with SPI connected; it writes
 * as the tables' owner, as store.c does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_JOB_H
#define ACCESSREQ_JOB_H

#include "call.h"
#include "nodes/pg_list.h"
#include "pull.h"
#include "store.h"
#include "tenant.h"

/* What a caller of sync() may and should do now. */
typedef struct JobDue
{
	bool		is_owner;
	bool		scan;			/* a scan is due, or one has to be taken up */
	bool		first;			/* no scan has ever finished */
} JobDue;

/* A job that is enabled, belongs to this database, and whose owner is here. */
typedef struct Job
{
	char	   *server;
	char	   *owner_name;
	Oid			owner;
	bool		may;			/* has the owner EXECUTE on start_sync()? */
	bool		first;			/* no scan has ever finished */
	TimestampTz scan_at;		/* when a full scan is due; DT_NOBEGIN: now */
	TimestampTz next_attempt_at;	/* DT_NOBEGIN: now */
} Job;

typedef struct JobRun
{
	int64		run_id;
	bool		counted;		/* as a failure, until it is none */
	bool		noted;			/* has it a row in sync_run? */
	const char *door;			/* what it stands on: see footing.h */
	const char *job_id;			/* NULL: not noted yet */
	const char *tenant;			/* as the token says, or NULL */
	PullKind	kind;
	const char *server;
	const char *owner;			/* the role that runs it */
	Oid			userid;			/* the same */
	bool		is_owner;		/* runs with the mapping of the job's owner */
	bool		keep_raw;
	TimestampTz keep_since;		/* closed items that are older are not kept;
								 * DT_NOBEGIN: all are */
	char	   *cursor;			/* to go on from, or NULL */
	PullMarks	marks;			/* what a cycle goes on from */
	DateForm	dates;			/* that the tenant takes, as is known */
	bool		dates_learned;	/* and not written down yet */
	bool		dates_failed;	/* what is known is wrong, or no row has a date */
	StoreCounts counts;
	CallCounts	calls;
	int64		missing;
	int64		pages;
	int64		before;			/* rows that the runs it takes up have seen */
	int64		total;			/* rows that the tenant has; -1: not known */
	int64		short_rows;		/* that it counts and did not return; -1: nobody knows */
	TimestampTz started;
} JobRun;

/*
 * Make the job's row where there is none, and give one without an owner to the
 * caller.  "tenant_name" is what the token said, or NULL.  Raises 55000 where
 * the job belongs to another database, or the token is for another tenant; and,
 * unless "beside_archive", before the first pull where rows of the same tenant
 * have a name that no server has.
 */
extern JobDue job_claim(const Tenant *tenant, const char *tenant_name, bool beside_archive);

/*
 * That name, before the first pull, for the tenant that the token is for (NULL: the
 * token does not say); NULL: there is none.  Or raises for it as above.
 */
extern char *job_left_behind(const Tenant *tenant, const char *tenant_name);
extern void job_check_left_behind(const Tenant *tenant, const char *tenant_name);

/* Its arguments: the name, the server, the name, the server. */
#define JOB_LEFT_BEHIND_HINT \
	"Was it renamed: SELECT accessreq.rename_server('%s', '%s'). If the rows are of no use any more: SELECT accessreq.forget('%s'). If they are an archive: CALL accessreq.sync('%s', beside_archive => true)."

/*
 * Raises 42704, with a hint, where there is a job and no server of that name: it
 * was renamed, or dropped.
 */
extern void job_check_has_server(const char *server);

/* After rename_server(): the job's server is the one that has its name. */
extern void job_note_server(const char *server);

/*
 * Begin a run.  Those that nobody ended are ended as interrupted, but for the
 * run "beside" (0: none), which is this process's own; unless "fresh" a scan of
 * the job's owner is taken up.  Allocated in the current context.
 */
extern JobRun *job_begin(const Tenant *tenant, PullKind kind, bool fresh, int64 beside);

/* What a worker has to do: a List of Jobs, in the current context. */
extern List *job_list(void);

/*
 * Count a failure before the work, so that a crash is counted; the run's end
 * makes it right.
 */
extern void job_count_ahead(JobRun *run);

/*
 * Make the run's row where it has none yet: with its first change, so that what
 * refers to it finds it.
 */
extern void job_note_run(JobRun *run);

/* How the tenant takes dates in filters: run->dates, of a pull of the owner's. */
extern void job_note_dates(const JobRun *run);
extern DateForm job_dates(const char *server);

/* A page was stored: note it, in the page's transaction.  "cursor" or NULL. */
extern void job_note_page(JobRun *run, const char *cursor);

/* The run is over, well, with the marks for the next cycle. */
extern void job_succeed(JobRun *run, const PullMarks *marks, TimestampTz scan_started);

/*
 * It is over with an error; it is tried again after a while that doubles, but
 * not before retry_us.  "again": a scan that failed by what it found is not
 * tried before the next is due.
 */
extern void job_fail(JobRun *run, const char *error, int64 retry_us, bool again);

/*
 * The same where there is no run yet: no token was to be had, or the owner may
 * no longer.
 */
extern void job_fail_early(const char *server, Oid owner, const char *error,
						   int64 retry_us);

/*
 * Somebody's lock keeps the job from its work: no failure, and said where failures
 * are, until a run ends well.
 */
extern void job_note_blocked(const char *server, const char *why);

/* It is over, and that is nobody's failure: noted on the run alone. */
extern void job_break_off(JobRun *run, const char *why);

/* What start_sync() says; NULL: as it is. */
typedef struct JobSchedule
{
	const Interval *every;
	const Interval *reconcile_every;
	const Interval *keep;
	bool		keep_for_ever;	/* whatever keep is */
	const bool *keep_raw;
} JobSchedule;

/*
 * Have a job pulled from the background; one that is not there, or was never
 * enabled, becomes the role's.  Or have it pulled no more.  Both raise 42501
 * where it is another's.
 */
extern void job_enable(const char *server, Oid userid, const JobSchedule *schedule);
extern void job_disable(const char *server);

/* Whose job it is. */
typedef struct JobOwner
{
	bool		found;			/* is there a job? */
	bool		enabled;
	char	   *name;			/* NULL: nobody's */
	Oid			role;			/* InvalidOid: it is gone */
	Oid			server;			/* InvalidOid: it is gone, or there is no job */
} JobOwner;

extern JobOwner job_owner(const char *server);

/* Is raw kept for this server? */
extern bool job_keep_raw(const char *server);

/*
 * Raises 55000 where the job of a server (by the name that its rows have) knows
 * another tenant than the one that the token is for.  True where it knows one.  Who
 * sends its actions has it remembered where it does not.
 */
extern bool job_check_tenant(const Tenant *tenant, const char *server, const char *tenant_name);
extern void job_check_same_tenant(const Tenant *tenant, const char *server, const char *tenant_name);

/* Raises 55000 where the job, if there is one, belongs to another database. */
extern void job_check_origin(const char *server);

/* What the job remembers as its tenant where the token does not say. */
extern const char *job_tenant_name(const Tenant *tenant, const char *token_says);

/* Where the job of a server belongs, or NULL where there is none. */
extern char *job_origin(const char *server);

/*
 * For who enqueues: make the job's row where there is none, nobody's and not
 * enabled.  Raises 55000 where it belongs to another database.  True where the
 * database has been promoted or recovered since the job last ran: see
 * action_after_recovery().
 */
extern bool job_ensure(const char *server);

/* Rows of sync_job were deleted or renamed: what it found before does not count. */
extern void job_row_is_gone(void);

/* The servers whose jobs are enabled and belong to this database. */
extern List *job_enabled_servers(void);

/* The servers of such jobs; and have it known, false if it was already. */
extern List *job_moved_timelines(void);
extern bool job_take_timeline(const char *server);
extern int	job_timeline_here(void);

/*
 * Hold the actions of a server back, or release them: whether that changed
 * anything.  Whether the current role may (42501); and all that a role may.
 */
extern bool job_hold(const char *server, Oid userid, bool hold);
extern void job_check_may_hold(const char *server);
extern List *job_servers_to_hold(Oid userid);

/*
 * The tenant asked to be left alone for so long: noted where the owner of the
 * actions is the job's, so that it counts for both.
 */
extern void job_note_retry_after(const char *server, Oid owner, int64 us);

/*
 * Delete the row of a job that has pulled nothing, and is not to: enqueueing has
 * made it, or a pull that could not begin.  A hold goes over to the job of "to".
 * False where it is more than that.
 */
extern bool job_give_way(const char *server, const char *to);

/* A job that nobody pulls yet, where there is none. */
extern void job_insert_ownerless(const char *server);

/* The pid of the process that holds the lock of a server's pull, or 0. */
extern int	job_running_pid(Oid serverid);

/* Tell who listens that a page changed something. */
extern void job_notify(const char *server, int64 run_id, const StoreCounts *page);

/* Delete runs that ended before accessreq.run_retention, a batch; how many. */
extern int64 job_expire_runs(int most);

#endif							/* ACCESSREQ_JOB_H */
