/*-------------------------------------------------------------------------
 *
 * job.h
 *	  The rows of sync_job and sync_run: whose pull it is, where it stands, and
 *	  how it ended.
 *
 * All of this runs in the current transaction, with SPI connected; it writes
 * as the tables' owner, as store.c does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_JOB_H
#define ACCESSREQ_JOB_H

#include "call.h"
#include "store.h"
#include "tenant.h"

typedef struct JobRun
{
	int64		run_id;
	const char *server;
	bool		is_owner;		/* runs with the mapping of the job's owner */
	bool		keep_raw;
	char	   *cursor;			/* to go on from, or NULL */
	StoreCounts counts;
	int64		pages;
	TimestampTz started;
} JobRun;

/*
 * Begin a pull: make the job's row where there is none, check that the tenant
 * is the one it was, and open a run.  Unless full_scan, an unfinished run of
 * the job's owner is taken up.  "tenant_name" is what the token said, or NULL.
 * Allocated in the current memory context.  Raises 55000 for another tenant.
 */
extern JobRun *job_begin(const Tenant *tenant, const char *tenant_name, bool full_scan);

/* A page was stored: note it with the cursor, in the page's transaction. */
extern void job_note_page(const JobRun *run, const CallCounts *calls, const char *cursor);

/* The run is over, with an error or none (NULL). */
extern void job_finish(const JobRun *run, const CallCounts *calls, const char *error);

/* Is raw kept for this server?  And does the job know another tenant (55000)? */
extern bool job_keep_raw(const char *server);
extern void job_check_tenant(const Tenant *tenant, const char *tenant_name);

/* Where the job of a server belongs, or NULL where there is none; and here. */
extern char *job_origin(const char *server);
extern char *job_origin_here(void);

/* The pid of the process that pulls a server, 0 where none says so. */
extern int	job_running_pid(const char *server);

/* What the job remembers as its tenant where the token does not say. */
extern const char *job_tenant_name(const Tenant *tenant, const char *token_says);

#endif							/* ACCESSREQ_JOB_H */
