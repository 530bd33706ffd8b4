/*-------------------------------------------------------------------------
 *
 * limiter.h
 *	  The request budget: how many requests may leave in any 10 seconds, and
 *	  until when a tenant told us to stay away.
 *
 * Who shares a budget is a question of trust: see the head of limiter.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LIMITER_H
#define ACCESSREQ_LIMITER_H

#include "postgres.h"
#include "storage/lwlock.h"
#include "tenant.h"

/* Names a budget: a keyed hash of what its users have in common. */
typedef struct LimiterKey
{
	uint64		a;
	uint64		b;
} LimiterKey;

#define LIMITER_ENDPOINT_LEN 128
#define LIMITER_CLIENT_LEN 64

/* What limiter_list() tells of a budget. */
typedef struct LimiterInfo
{
	uint64		name;			/* for limiter_clear(); says nothing of the key */
	bool		of_token;		/* of a token endpoint, which has no requests */
	bool		shared;			/* of all who have proven to be the client */
	Oid			database;		/* who used it last; of one that is not shared: */
	Oid			serverid;		/* whose it is */
	Oid			userid;
	int			api;			/* ApiVersion */
	char		endpoint[LIMITER_ENDPOINT_LEN];
	char		token_endpoint[LIMITER_ENDPOINT_LEN];	/* that vouches for the
														 * client; "" with a
														 * static token */
	char		client_id[LIMITER_CLIENT_LEN];	/* ASCII; "" with a static token */
	int			limit;			/* 0: none */
	int			used;			/* in the last 10 seconds */
	int64		blocked_us;		/* for how long from now on; 0: not */
} LimiterInfo;

/* The budget in which the tenant's caller is now. */
extern LimiterKey limiter_key(const Tenant *tenant);

/*
 * A token was granted to exactly this credential, or a static one accepted; or
 * it was refused.  From then on the caller is in the client's budget, or in one
 * of his own.  The request that proved it was charged to "charged", and counts
 * in the client's.
 */
extern void limiter_granted(const Tenant *tenant, LimiterKey charged);
extern void limiter_refused(const Tenant *tenant);

/*
 * Take one request out of the budget, of which "leave" are left to others: 0
 * when it may leave now (and is counted), else how many microseconds to wait
 * before asking again (nothing is counted).  *charged is the budget.  "granted":
 * the caller holds a token that was granted to his credential, which proves it
 * once more.
 */
extern int64 limiter_take(const Tenant *tenant, int leave, bool granted, LimiterKey *charged);

/* So many of those that were taken have not left after all. */
extern void limiter_give_back(LimiterKey charged, int n);

/*
 * The tenant, or its token endpoint, answered 429: nothing leaves to it for so
 * long (capped at the vendor's longest).  And for how much longer, in
 * microseconds; 0: it may.
 */
extern void limiter_block(const Tenant *tenant, int64 microseconds);
extern void limiter_block_token(const Tenant *tenant, int64 microseconds);
extern int64 limiter_blocked(const Tenant *tenant);
extern int64 limiter_token_blocked(const Tenant *tenant);

/* How many requests are left in the budget of this moment (-1: no limit). */
extern int	limiter_left(const Tenant *tenant);

/* All budgets in use, palloc'd. */
extern LimiterInfo *limiter_list(int *n);

/*
 * Forget what a budget counted, its block and the smallest limit that was asked
 * for; who has proven to be its client stays.  False where there is none.
 */
extern bool limiter_clear(uint64 name);

/* Do all processes share it? */
extern bool limiter_is_shared(void);

/* Shared memory, when preloaded. */
extern Size limiter_shmem_size(void);
extern void limiter_shmem_init(LWLock *lock);

#endif							/* ACCESSREQ_LIMITER_H */
