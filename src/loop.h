/*-------------------------------------------------------------------------
 *
 * loop.h
 *	  The loop that moves pulls over the network and into the tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LOOP_H
#define ACCESSREQ_LOOP_H

#include "job.h"
#include "pull.h"

/*
 * Who runs the loop: how a transaction of his is ended, and what he wants to
 * hear.  commit() leaves a transaction that can be used, and nothing held.
 */
typedef struct LoopHost
{
	void		(*commit) (void *arg);
	void		(*progress) (void *arg, const JobRun *run, PullProgress progress);
	void	   *arg;
} LoopHost;

/*
 * Carry a pull to its end; each page is committed together with its cursor.
 * The pull's lock is held and SPI connected.  An error of the tenant is noted
 * on the run, committed, and raised; any other error leaves the run unfinished,
 * to be taken up by the next pull.
 */
extern void loop_pull(const Tenant *tenant, CallSet *calls, JobRun *run,
					  const LoopHost *host);

/* What a page of statuses by request ids brought to refresh(). */
typedef void (*LoopOutcome) (void *arg, const StoreOutcome *outcome);

/*
 * Read these access requests and store them in the current transaction, under
 * the page lock, which is taken after the last request.  "tenant_name" is what
 * the token said; raises 55000 where the rows are another tenant's.
 */
extern void loop_refresh(const Tenant *tenant, const char *tenant_name, CallSet *calls,
						 const char *const *ids, int nids,
						 LoopOutcome report, void *arg);

/*
 * Read the statuses of access requests, as many requests at once as the tenant
 * allows, and hand each page to "take", in any order; "take" frees the call.
 */
typedef void (*LoopPage) (void *arg, Call *call, JsonSpan *items, int nitems);
extern void loop_status_of(const Tenant *tenant, CallSet *calls,
						   const char *const *ids, int nids,
						   LoopPage take, void *arg);

/* Cut the body of a status page; raises 08P01 where it is none. */
extern JsonSpan *loop_cut(const Tenant *tenant, Call *call, int *nitems);

#endif							/* ACCESSREQ_LOOP_H */
