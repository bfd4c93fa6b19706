const SECRET_QUERY =
  /^(token|access_token|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential|policy|key-pair-id|password|verify)$/i;

/** A URL fit for a log: no user info, no signature or token in the query. What is no URL comes back as it is, shortened. */
export function redactUrl(text: string): string {
  if (!URL.canParse(text)) return text.slice(0, 200);
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') {
    url.username = '***';
    url.password = '';
  }
  for (const name of [...url.searchParams.keys()]) if (SECRET_QUERY.test(name)) url.searchParams.set(name, '***');
  return url.href;
}
