/*-------------------------------------------------------------------------
 *
 * url.c
 *	  The few things we need to know of a URL, and which hosts may be called.
 *
 * libcurl parses URLs as well, but options are checked in places where it must
 * not run (the postmaster's children before first use), and we want less than
 * it accepts: no userinfo, no fragment, nothing that two parsers could read
 * differently, because the host decides who receives a secret.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "url.h"

#define HTTP_PORT 80
#define HTTPS_PORT 443

/* Longest host name (RFC 1035), and what fits a URL in a header with it. */
#define MAX_HOST_LENGTH 253

static bool
valid_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

/* The end of the host at "p", or NULL where it is not one. */
static const char *
scan_host(const char *p)
{
	const char *start = p;

	if (*p == '[')
	{
		const char *colon = strchr(p, ':');

		for (p++; *p && *p != ']'; p++)
		{
			if (strchr("0123456789abcdefABCDEF:.", *p) == NULL)
				return NULL;
		}
		return *p == ']' && colon != NULL && colon < p ? p + 1 : NULL;
	}
	if (*p == '.')
		return NULL;
	while (valid_host_char(*p))
	{
		if (p[0] == '.' && p[1] == '.')
			return NULL;
		p++;
	}
	return (p > start && p - start <= MAX_HOST_LENGTH) ? p : NULL;
}

static char *
lower_copy(const char *s, size_t len)
{
	char	   *result = pnstrdup(s, len);

	for (char *p = result; *p; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	return result;
}

const char *
url_parse(const char *text, Url *url)
{
	const char *p,
			   *end;

	for (p = text; *p; p++)
	{
		if ((unsigned char) *p <= ' ' || (unsigned char) *p >= 0x7f || *p == '\\')
			return "it holds a character that a URL cannot hold";
	}
	if (pg_strncasecmp(text, "https://", 8) == 0)
		url->https = true, p = text + 8;
	else if (pg_strncasecmp(text, "http://", 7) == 0)
		url->https = false, p = text + 7;
	else
		return "it does not begin with https://";
	if (strchr(text, '@') != NULL)
		return "it holds a user name or password";
	if (strchr(text, '?') != NULL)
		return "it holds a query";
	if (strchr(text, '#') != NULL)
		return "it holds a fragment";
	end = scan_host(p);
	if (end == NULL)
		return "it has no valid host";
	url->host = lower_copy(p, end - p);
	url->port = url->https ? HTTPS_PORT : HTTP_PORT;
	if (*end == ':')
	{
		char	   *after;
		long		port = strtol(end + 1, &after, 10);

		if (after == end + 1 || port < 1 || port > 65535 || end[1] == '+' || end[1] == '-')
			return "its port is not a number from 1 to 65535";
		url->port = (int) port;
		end = after;
	}
	if (*end != '\0' && *end != '/')
		return "its host is followed by something else than a port or a path";
	if (strstr(end, "..") != NULL || strchr(end, '%') != NULL || strstr(end, "//") != NULL)
		return "its path holds \"..\", \"//\" or \"%\"";
	url->path = pstrdup(end);
	return NULL;
}

bool
url_is_loopback(const char *host)
{
	int			a,
				b,
				c,
				d;
	char		extra;

	if (pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return sscanf(host, "%3d.%3d.%3d.%3d%c", &a, &b, &c, &d, &extra) == 4 &&
		a == 127 && b >= 0 && b <= 255 && c >= 0 && c <= 255 && d >= 0 && d <= 255;
}

static bool
pattern_matches(const char *host, const char *pattern, size_t len)
{
	size_t		host_len = strlen(host);

	if (len > 2 && pattern[0] == '*' && pattern[1] == '.')
	{
		/* ".domain" must end the host, with a name before it */
		pattern++;
		len--;
		return host_len > len &&
			pg_strncasecmp(host + host_len - len, pattern, len) == 0;
	}
	return host_len == len && pg_strncasecmp(host, pattern, len) == 0;
}

bool
url_host_listed(const char *host, const char *patterns)
{
	const char *p = patterns;

	while (*p)
	{
		size_t		len;

		p += strspn(p, ", \t");
		len = strcspn(p, ", \t");
		if (len > 0 && pattern_matches(host, p, len))
			return true;
		p += len;
	}
	return false;
}
