package io.cluemobile

/** A signed record of what was done (contract/receipt.schema.json): [text] is exactly its canonical bytes in UTF-8. */
public class Receipt internal constructor(
    public val number: Long,
    public val kind: String,
    public val request: Long?,
    public val text: String,
)
