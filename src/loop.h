/*-------------------------------------------------------------------------
 *
 * loop.h
 *	  The loop that moves pulls over the network and into the tables.
 *
 * A LoopRun is one pull under way.  Whoever runs it, CALL sync or the worker,
 * goes round: loop_fetch() asks for what the pull wants; a call of its set that
 * has ended goes to loop_take(); loop_store() stores the pages that have come,
 * one a transaction; and when loop_end() says so, and no page is left of one
 * that succeeded, loop_finish() writes down how it ended.
 *
 * Everything wants a transaction with SPI connected, and the pull's lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LOOP_H
#define ACCESSREQ_LOOP_H

#include "job.h"
#include "pull.h"

typedef struct LoopRun LoopRun;

typedef enum LoopEnd
{
	LOOP_GOES_ON,
	LOOP_SUCCEEDED,
	LOOP_FAILED
} LoopEnd;

/*
 * Open it in a child of the current context; the tenant, the calls and the run
 * must live as long.  "patience_us" as in CallSpec.
 */
extern LoopRun *loop_open(const Tenant *tenant, CallSet *calls, JobRun *run,
						  int64 patience_us);
extern void loop_close(LoopRun *loop);

extern void loop_fetch(LoopRun *loop);

/* Hand in a call that has ended; its LoopRun is found by its tag, and returned. */
extern LoopRun *loop_take(Call *call);

/*
 * Store the first page that waits, in a subtransaction.  NULL, or the error,
 * palloc'd; then the page still waits.
 */
extern bool loop_has_page(const LoopRun *loop);
extern ErrorData *loop_store(LoopRun *loop);

/*
 * Write down how it ended.  One that succeeded may not stand any more where it
 * stood: then raises what footing_check() does, and nothing is written.
 */
extern void loop_finish(LoopRun *loop);

/* End it by an error of our own. */
extern void loop_fail(LoopRun *loop, const char *error);

extern LoopEnd loop_end(const LoopRun *loop);

/* What ended one that failed; and raise it. */
extern const char *loop_error(const LoopRun *loop);
extern void loop_raise(const LoopRun *loop);

extern PullProgress loop_progress(const LoopRun *loop);

#endif							/* ACCESSREQ_LOOP_H */
