/*-------------------------------------------------------------------------
 *
 * verdict.h
 *	  What an answer, or what was found by looking, means for an action.
 *
 * Decisions alone: no network, no database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_VERDICT_H
#define ACCESSREQ_VERDICT_H

#include "action.h"
#include "apierror.h"

typedef enum Verdict
{
	VERDICT_DONE,				/* the tenant accepted it, or has carried it out */
	VERDICT_FAILED,				/* it refused, or has not carried it out */
	VERDICT_UNKNOWN,			/* the answer was lost: look */
	VERDICT_AGAIN,				/* it was provably not accepted: send it again */
	VERDICT_ALONE,				/* so were several together: send each by itself */
	VERDICT_LOOK,				/* nothing can be said yet: look again */
	VERDICT_GIVE_UP				/* nothing can be said, and looking ends */
} Verdict;

/* Of an answer to "n" actions that were sent together; NULL: success. */
extern Verdict verdict_of_answer(const ApiError *error, int n);

/* What was found of an action. */
typedef struct Finding
{
	int			items;			/* that the tenant lists */
	int			open;			/* of these */
	int			cancelled;
	int			requests;		/* access requests among them */
	int			wanted;			/* items that a create asked for */
	bool		in_place;		/* merge_config: merging would change nothing */
	int			items_before;	/* at the look before this one; -1: there was none */
} Finding;

/*
 * Of an action that was sent so long ago, or looked for so long where nobody
 * knows that it was sent.
 */
extern Verdict verdict_of_finding(const Action *action, const Finding *finding, int64 age_us);

#endif							/* ACCESSREQ_VERDICT_H */
