/*-------------------------------------------------------------------------
 *
 * url.h
 *	  The few things we need to know of a URL, and which hosts may be called.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_URL_H
#define ACCESSREQ_URL_H

#include "postgres.h"

typedef struct Url
{
	bool		https;
	char	   *host;			/* lower case; IPv6 in its brackets */
	int			port;			/* the scheme's default where none is given */
	char	   *path;			/* with its leading slash, or "" */
} Url;

/*
 * Take a URL apart: http or https, host, optional port and path.  Returns
 * NULL, or what is wrong with it (a constant, "it has a query").
 */
extern const char *url_parse(const char *text, Url *url);

/* Is the host this machine's own: 127.0.0.0/8, [::1], localhost? */
extern bool url_is_loopback(const char *host);

/*
 * Does a list of host patterns, separated by commas, hold the host?  A pattern
 * is a host, or "*." and a domain, which stands for every name below it.
 */
extern bool url_host_listed(const char *host, const char *patterns);

#endif							/* ACCESSREQ_URL_H */
