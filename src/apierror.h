/*-------------------------------------------------------------------------
 *
 * apierror.h
 *	  From an HTTP status or a failed transfer to SQLSTATE, message, DETAIL
 *	  and HINT: the one place, which doc/errors.md prints as a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_APIERROR_H
#define ACCESSREQ_APIERROR_H

#include "http.h"
#include "tenant.h"

/* What an error means for the work that was asked for. */
typedef enum ApiOutcome
{
	API_ACCEPTED,				/* no error */
	API_REFUSED,				/* the tenant said no to this request */
	API_DENIED,					/* it would say no to any: 401, 403 */
	API_LIMITED,				/* 429, or the budget */
	API_NOT_SENT,				/* it cannot have arrived */
	API_LOST					/* it may have been carried out */
} ApiOutcome;

/* All texts in the server's encoding, palloc'd. */
typedef struct ApiError
{
	ApiOutcome	outcome;
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *hint;			/* NULL: none */
	HttpFailure failure;		/* of the transfer */
	int			status;			/* HTTP, 0 without an answer */
	char	   *tracking_id;	/* NULL: none */
	bool		past_end;		/* the 400 that means the end of the pages */
} ApiError;

/*
 * Describe what went wrong with "what" ("cancel access request \"…\""), given
 * the answer to it.  "changes": the request was no GET or PUT, so that a lost
 * answer leaves open whether it was carried out.  "token": it was the fetch of
 * a token.
 */
extern ApiError *api_error_describe(const Tenant *tenant, const char *what,
									const HttpResponse *response,
									bool changes, bool token);

/* The error of a budget or a Retry-After that cannot be waited for. */
extern ApiError *api_error_limited(const Tenant *tenant, const char *what,
								   int64 wait_us, bool by_tenant);

/* An answer that should have been JSON of some shape and is not. */
extern ApiError *api_error_bad_answer(const Tenant *tenant, const char *what,
									  const HttpResponse *response,
									  const char *problem, bool changes);

/*
 * A 2xx to a write that does not accept it: another status than the one that does,
 * or a body that is no JSON.
 */
extern ApiError *api_error_unclear(const Tenant *tenant, const char *what,
								   const HttpResponse *response, int accepted);

/* What was PUT was read back, and is not there. */
extern ApiError *api_error_not_put(const Tenant *tenant, const char *what,
								   const HttpResponse *response);

/* Whatever the error is, it kept what was PUT from being read back. */
extern void api_error_mark_unread(ApiError *error);

/* An answer of a token endpoint that has no token in it. */
extern ApiError *api_error_no_token(const Tenant *tenant, const char *what,
									const HttpResponse *response);

/* A copy in the current memory context. */
extern ApiError *api_error_copy(const ApiError *error);

extern _Noreturn void api_error_raise(const ApiError *error);

/*
 * UTF-8 of the tenant in the server's encoding: what cannot be converted
 * becomes "?".  For a message also cut short and without control characters.
 */
extern char *api_error_convert(const char *utf8, size_t len);
extern char *api_error_text(const char *utf8);

#endif							/* ACCESSREQ_APIERROR_H */
