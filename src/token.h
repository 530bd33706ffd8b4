/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Access tokens: OAuth client credentials, kept per process by mapping.
 *
 * Nothing here waits: a token is there, or the caller sends the request that
 * token_spec() describes and hands the answer to token_accept().
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_TOKEN_H
#define ACCESSREQ_TOKEN_H

#include "http.h"
#include "tenant.h"

/*
 * The token to use now, or NULL when one has to be fetched.  *serial names it
 * for token_drop().  Valid until the next call of a function of this file.
 */
extern const char *token_get(const Tenant *tenant, uint64 *serial);

/*
 * The request that fetches a token.  spec->body holds the secret: the caller
 * calls token_spec_done() when it has been handed to http_start().  Returns the
 * secret, palloc'd, for the caller to zero.  Raises where its file cannot be read.
 */
extern char *token_spec(const Tenant *tenant, HttpSpec *spec);
extern void token_spec_done(HttpSpec *spec);

/*
 * Keep the token of an answer with status 200, and what it says of itself where
 * that does not repeat the secret; false where there is none.
 */
extern bool token_accept(const Tenant *tenant, const HttpResponse *response,
						 const char *secret);

/* The tenant refused this token (401): forget it, unless it is newer already. */
extern void token_drop(const Tenant *tenant, uint64 serial);

/*
 * What the token says of itself, palloc'd or NULL: the tenant it is for, and
 * the identity behind it.
 */
extern char *token_tenant(const Tenant *tenant);
extern char *token_identity(const Tenant *tenant);

#endif							/* ACCESSREQ_TOKEN_H */
