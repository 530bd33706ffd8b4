/*-------------------------------------------------------------------------
 *
 * call.h
 *	  One call of the API, from the budget to the answer: token, retries,
 *	  Retry-After.  Several may be under way at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_CALL_H
#define ACCESSREQ_CALL_H

#include "apierror.h"
#include "http.h"
#include "limiter.h"
#include "tenant.h"

/* The calls of one opener; taken down with the memory context it is opened in. */
typedef struct CallSet CallSet;
typedef struct Call Call;

/* Whose it is: some leave a part of the budget to others. */
typedef enum CallShare
{
	CALL_OF_SESSION,			/* takes all of it */
	CALL_OF_ACTION,				/* leaves a tenth, at least one request, to sessions */
	CALL_OF_PULL				/* leaves half while actions wait, see call_yield() */
} CallShare;

typedef struct CallSpec
{
	const Tenant *tenant;
	const char *method;			/* GET, POST or PUT */
	const char *path;			/* below base_url, with its query */
	const char *body;			/* JSON (UTF-8), or NULL */
	const char *header;			/* one more header, or NULL */
	int			accepted;		/* the status that accepts a POST or PUT */
	const char *what;			/* for errors: "cancel access request \"…\"" */
	const char *refused_hint;	/* what to do about a 400, a constant or NULL */
	const char *unknown_hint;	/* about a 404, likewise */
	bool		patient;		/* waits for the budget and Retry-After in
								 * full: a pull, not a session's call */
	int64		patience_us;	/* but a longer Retry-After ends a patient call
								 * as an error; 0: none does */
	CallShare	share;
	bool		prepaid;		/* by call_prepay() */
	void	   *tag;
	struct CallCounts *counts;	/* what it takes is added there too; or NULL */
} CallSpec;

/* What calls took. */
typedef struct CallCounts
{
	int64		requests;		/* tokens and retries included */
	int64		limited;		/* waits because of a 429 */
} CallCounts;

/* Nothing of the network is touched before the first call. */
extern CallSet *call_open(MemoryContext parent);
extern const CallCounts *call_counts(CallSet *set);

/*
 * Start a call; "spec" and its texts are copied, the tenant is not.  Raises
 * 25006 for what is no GET on a standby, in a read-only transaction, or on a
 * server with read_only; everything later is in call_error().
 */
extern Call *call_start(CallSet *set, const CallSpec *spec);

/* The same check for who sends later; and the server's part of it alone. */
extern void call_check_may_change(const Tenant *tenant, const char *what);
extern void call_check_not_read_only(const Tenant *tenant, const char *what);

/*
 * For who must know that a call leaves at once before it is started: take its
 * first request out of the budget, 0, or how long to wait for that; *charged is
 * the budget, to pay back what is not sent.  And how many more can be under way
 * in the set.
 */
extern int64 call_prepay(const Tenant *tenant, CallShare share, LimiterKey *charged);
extern void call_pay_back(LimiterKey charged, int n);
extern int	call_room(CallSet *set);

/*
 * Actions wait for these budgets, and for no other: of these pulls leave them a
 * part.
 */
#define CALL_MAX_YIELDED 16
extern void call_yield(CallSet *set, const LimiterKey *budgets, int n);

/* Send nothing any more: what has not left, or would again, ends as not sent. */
extern void call_stop_sending(CallSet *set);

/* Send now what can be sent, without waiting. */
extern void call_advance(CallSet *set);

/*
 * Wait until a call of the set has ended and return it; each is returned once.
 * NULL when no call is under way.
 */
extern Call *call_wait(CallSet *set);

/*
 * The same in two parts, for a process that serves several and must hold no
 * transaction while it waits.  call_poll(), in a transaction, returns a call
 * that has ended, or NULL and in *next_ms when to look again at the latest (-1:
 * not for the clock's sake).  call_sleep() waits, without one, until a request
 * has ended, the time has passed, or the latch is set: then it is true.
 */
extern Call *call_poll(CallSet *set, long *next_ms);
extern bool call_sleep(CallSet *set, long timeout_ms);

/* Has its request left, or may it have?  And wait for it alone. */
extern bool call_was_sent(const Call *call);
extern void call_finish(Call *call);

/* Start a call and wait for it. */
extern Call *call_run(CallSet *set, const CallSpec *spec);

/* The same, and raise its error. */
extern Call *call_run_or_raise(CallSet *set, const CallSpec *spec);

extern void *call_tag(const Call *call);

/*
 * Success of what reads is any 2xx, whose body the caller judges; of a write, the
 * status that accepts it with an empty body or JSON.  Any other 2xx to a write, a
 * gateway's page say, leaves open whether it was carried out, which is the error of
 * a lost answer.  What was PUT and is not in the answer is read back by a GET, and
 * is success where it is there: then the response is that of the GET.
 */
extern const ApiError *call_error(const Call *call);	/* NULL: success */
extern HttpResponse *call_response(const Call *call);	/* NULL where none */
extern void call_free(Call *call);

/* Do the tenant's words repeat the token, or the secret, that was sent last? */
extern bool call_repeats_secret(const Call *call, const char *text);

/* How long the tenant or the budget asks to wait, of an API_LIMITED error. */
extern int64 call_limited_us(const Call *call);

/*
 * A token for the tenant, fetched if need be, or the error.  "patient" as in
 * CallSpec.
 */
extern const ApiError *call_fetch_token(CallSet *set, const Tenant *tenant, bool patient);

/* Start such a call, which ends with the token; of "spec" only tenant, patience and tag. */
extern Call *call_start_token(CallSet *set, const CallSpec *spec);

#endif							/* ACCESSREQ_CALL_H */
