/*-------------------------------------------------------------------------
 *
 * limiter.h
 *	  The request budget: how many requests may leave in any 10 seconds, and
 *	  until when a tenant told us to stay away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LIMITER_H
#define ACCESSREQ_LIMITER_H

#include "postgres.h"
#include "storage/lwlock.h"
#include "tenant.h"

/* What shares a budget: a client of an endpoint and an API version, hashed. */
typedef struct LimiterKey
{
	uint64		a;
	uint64		b;
} LimiterKey;

/*
 * A tenant's client is known by its id, or by its static token: of that only a
 * hash with a key that lives as long as the server process reaches shared
 * memory.
 */
extern LimiterKey limiter_key(const Tenant *tenant);

/*
 * Take one request out of the budget, of which "leave" are left to others: 0
 * when it may leave now (and is counted), else how many microseconds to wait
 * before asking again (nothing is counted).
 */
extern int64 limiter_take(LimiterKey key, int rate_limit, int leave);

/* So many of those that were taken have not left after all. */
extern void limiter_give_back(LimiterKey key, int n);

/* The tenant answered 429: nothing leaves for so long (capped at a day). */
extern void limiter_block(LimiterKey key, int64 microseconds);

/* For how long it is blocked, in microseconds, and how many requests are left
 * in the budget of this moment (-1: no limit). */
extern int64 limiter_blocked(LimiterKey key);
extern int	limiter_left(LimiterKey key, int rate_limit);

/* Do all processes share it? */
extern bool limiter_is_shared(void);

/* Shared memory, when preloaded. */
extern Size limiter_shmem_size(void);
extern void limiter_shmem_init(LWLock *lock);

#endif							/* ACCESSREQ_LIMITER_H */
