/*-------------------------------------------------------------------------
 *
 * inquiry.h
 *	  Looking in the tenant what became of actions whose answer was lost.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_INQUIRY_H
#define ACCESSREQ_INQUIRY_H

#include "action.h"
#include "call.h"
#include "filter.h"
#include "verdict.h"

typedef struct Inquiry Inquiry;

/*
 * One after actions of one owner, a List of Actions, which are copied; "dates" is
 * how the tenant takes dates in filters.  In a
 * child of the current context; the tenant and the calls must live as long.
 */
extern Inquiry *inquiry_open(const Tenant *tenant, CallSet *calls, List *actions,
							 DateForm dates);
extern void inquiry_close(Inquiry *inquiry);

/* A call has ended: is it one of its?  Allocates nothing. */
extern bool inquiry_take(Inquiry *inquiry, Call *call);
extern bool inquiry_has_news(const Inquiry *inquiry);

/* Read what has come and ask for more.  In a transaction. */
extern void inquiry_go_on(Inquiry *inquiry);

/*
 * See what is stored of creates as well, under the name that the rows have: a
 * pull may find what this list does not.  In a transaction, with SPI connected.
 */
extern void inquiry_see_stored(Inquiry *inquiry, const char *server);

/* Is all there, or an error?  In the latter case nothing was found out. */
extern bool inquiry_is_over(const Inquiry *inquiry);
extern const ApiError *inquiry_error(const Inquiry *inquiry);
extern int64 inquiry_limited_us(const Inquiry *inquiry);

/* What was found of the action with this place in the list. */
typedef struct Found
{
	Finding		finding;
	const char *refused;		/* the tenant refused to show it; NULL: it did
								 * not.  Server's encoding */
	const Action *action;
	const char **ids;			/* of a create: access requests; UTF-8 */
	int			nids;
	char	   *evidence;		/* JSON (UTF-8) */
	char	   *what;			/* the same in words, server's encoding */
} Found;

/* Where it looks. */
extern const Tenant *inquiry_tenant(const Inquiry *inquiry);

extern int	inquiry_size(const Inquiry *inquiry);
extern Found inquiry_found(Inquiry *inquiry, int i);

#endif							/* ACCESSREQ_INQUIRY_H */
