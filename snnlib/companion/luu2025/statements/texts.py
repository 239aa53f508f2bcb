"""Statements and proofs that stand in for those of Luu et al. 2025, in Markdown with LaTeX. Status: `statements`."""

A1 = {
    "id": "A.1",
    "title": "Random vulnerability",
    "latex": r"""
For a classifier with true-class probability $f_y:\mathbb R^d\to[0,1]$, an input $x$ and $\varepsilon\ge 0$,
$$\rho_{\rm rand}(f,x,\varepsilon)=\mathbb E_{\delta\sim{\rm Unif}\{\|\delta\|_\infty\le 1\}}
\big[(f_y(x+\varepsilon\delta)-f_y(x))^2\big].$$""",
    "proof": r"""
A definition. The paper's formula is not available to us; the squared difference with noise that is uniform in the
*solid* ball is the only form of this kind that yields the constant 3 of theorem 4.1, because a coordinate uniform
on $[-1,1]$ has variance $1/3$.""",
    "example": r"""
The constant belongs to the noise, not to networks: noise that is clipped to the pixel box, as images force it to
be, has another variance, and for a linear $f$ the ratio leaves 3.""",
}
A2 = {
    "id": "A.2",
    "title": "Adversarial vulnerability",
    "latex": r"""
$$\rho_{\rm adv}(f,x,\varepsilon)=\sup_{\|\delta\|_\infty\le 1}\big(f_y(x+\varepsilon\delta)-f_y(x)\big)^2 .$$ Hence
$0\le\rho_{\rm rand}\le\rho_{\rm adv}\le\max(f_y,1-f_y)^2\le 1$, and both are 0 at $\varepsilon=0$.""",
    "proof": r"""
A definition; a mean is at most a supremum, and $f_y$ stays in $[0,1]$. The square makes *raising* the true class's
probability count like lowering it.""",
    "example": r"""
An attacker who only lowers $f_y$, as every misclassification attack does, misses the supremum where $f_y$ is small:
there is no room below and much room above.""",
}
T41 = {
    "id": "4.1",
    "title": "Ratio of the vulnerabilities",
    "latex": r"""
Let $f_y$ be differentiable at $x$ with gradient $g\ne 0$, and Lipschitz gradient around $x$. Then, as
$\varepsilon\to 0$, $$3\;\le\;\frac{\rho_{\rm adv}}{\rho_{\rm rand}}\Big|_{\varepsilon\to 0}
=3\,\frac{\|g\|_1^2}{\|g\|_2^2}\;\le\;3\,\|g\|_0 .$$ At finite $\varepsilon$ there is a remainder, see O1. The two
inequalities between the *norms* are identities of algebra and are never evidence about a network; what can be
tested is the equality.""",
    "proof": r"""
With an $H$-Lipschitz gradient, $f_y(x+\varepsilon\delta)-f_y(x)=\varepsilon\,g\cdot\delta+R$ and $|R|\le H
d\,\varepsilon^2/2$ for $\|\delta\|_\infty\le1$. Coordinates of the noise are independent with mean 0 and variance
$1/3$, so $\rho_{\rm rand}=\tfrac{\varepsilon^2}{3}\|g\|_2^2+O(\varepsilon^3)$; and $\sup g\cdot\delta=\|g\|_1$, so
$\rho_{\rm adv}=\varepsilon^2\|g\|_1^2+O(\varepsilon^3)$. Divide. Then $\|g\|_2\le\|g\|_1$, and Cauchy-Schwarz on
the support gives $\|g\|_1^2\le\|g\|_0\|g\|_2^2$. Equality on the left iff one entry is non-zero, on the right iff
all non-zeros have the same magnitude.""",
    "example": r"""
$\varepsilon$ not small: for $f=\sigma(a\,x_1)$ with $a\varepsilon\gg 1$ every perturbation of either sign moves $f$
by about $\tfrac12$, and the ratio falls to 1, below 3. Without a derivative (the deployed network, P4) the ratio is
0/0.""",
}
T42 = {
    "id": "4.2",
    "title": "Thinned gradients have a lower signal-to-noise ratio",
    "latex": r"""
Let a gradient coordinate $G$ have mean $\mu\neq0$ and variance $\sigma^2>0$, and let $M\sim{\rm Bernoulli}(q)$ be
independent of $G$. For $G'=MG$, $${\rm SNR}(q):=\frac{(\mathbb E G')^2}{{\rm
Var}\,G'}=\frac{q\,\mu^2}{\sigma^2+(1-q)\mu^2},$$ strictly increasing in $q$, and ${\rm SNR}(q)\le q\,{\rm SNR}(1)$.""",
    "proof": r"""
$\mathbb E G'=q\mu$ and ${\rm Var}\,G'=q(\sigma^2+\mu^2)-q^2\mu^2=q\,(\sigma^2+(1-q)\mu^2)$; divide. The derivative
of $q/(\sigma^2+(1-q)\mu^2)$ is $(\sigma^2+\mu^2)/(\cdot)^2>0$. And ${\rm SNR}(q)/{\rm
SNR}(1)=q\,\sigma^2/(\sigma^2+(1-q)\mu^2)\le q$.""",
    "example": r"""
Zeros that know the gradient: keep only the large draws, $M=1[G>c]$, and the SNR *rises*. Surrogates zero what is
small, so independence is the weak spot of the whole argument.""",
}
T43 = {
    "id": "4.3",
    "title": "Input-gradient sparsity bounds weight-gradient density",
    "latex": r"""
A layer $z[t]=Ws[t]$ is used at $t=1..T$; $\delta[t]=\partial L/\partial z[t]$ is the total derivative (BPTT). Let
$R=\{i:\exists t\;\delta_i[t]\ne0\}$, $C=\{j:\exists t\;s_j[t]\ne0\}$. Then $$\Big\|\frac{\partial L}{\partial
W}\Big\|_0\le\min\Big(|R||C|,\;\sum_t\|\delta[t]\|_0\|s[t]\|_0\Big).$$ If between $z$ and what the next layer
receives, $a$, there are only coordinatewise maps (BatchNorm in eval, the neuron), and $S$ is the share of neurons
with $\partial L/\partial a_i[t]=0$ for all $t$, $r$ the share of inputs that spike at all, $${\rm density}(\partial
L/\partial W)\le(1-S)\,r .$$ For a convolution read rows and columns as channels.""",
    "proof": r"""
$\partial L/\partial W=\sum_t\delta[t]s[t]^\top$. The term of $t$ has at most $\|\delta[t]\|_0\|s[t]\|_0$ non-zeros,
all in $R\times C$; so has the sum. For the second claim: with $D$ the diagonal of BatchNorm's scales,
$\delta[t]=D\sum_{t'\ge t}J[t',t]^\top \partial L/\partial a[t']$, where $J[t',t]$, the Jacobian of the neurons, is
diagonal over neurons and zero for $t'<t$. So $\delta_i[t]\ne0$ needs some $\partial L/\partial a_i[t']\ne0$, and
$|R|\le(1-S)m$. Convolution: the entry $(o,i,u)$ is $\sum_{t,p}\delta_o[t,p]\,s_i[t,p+u]$, zero unless channel $o$
is in $R$ and channel $i$ in $C$.""",
    "example": r"""
A layer whose output is also used elsewhere, as by the shortcut of a pre-activation block, gets a gradient that no
neuron sent: the density exceeds $(1-S)r$. The same happens per sample under train-mode BatchNorm (O3).""",
}
T44 = {
    "id": "4.4",
    "title": "Density trades guaranteed progress against vulnerability",
    "latex": r"""
(i) Let the risk $L$ be $H$-smooth, $G$ an unbiased gradient with $M=\mathbb E\|G\|^2$, thinned coordinatewise and
independently with density $q$ to $G'$. The step $\eta=\|\nabla L\|^2/(HM)$ guarantees $$\mathbb E\,L(w)-\mathbb
E\,L(w-\eta G')\;\ge\;P(q)=\frac{q\,\|\nabla L\|^4}{2HM}.$$

(ii) Let the *input* gradient $g_q$ have $\|g_q\|_0=qd$, with the same $q$, and let $\|g_q\|_2$ be the same for every
$q$. By theorem 4.1, to first order, $\rho_{\rm adv}\le\varepsilon^2\,q\,d\,\|g_q\|_2^2$, and both bounds are linear
in $q$.

(iii) Neither assumption of (ii) follows from thinning. If $g_q$ is a given $g$ without zeros, of which $qd$ random
coordinates are kept, then $\mathbb E\|g_q\|_2^2=q\,\|g\|_2^2$, and the bound is on average *quadratic*,
$\varepsilon^2q^2d\,\|g\|_2^2$.""",
    "proof": r"""
(i) $\mathbb E G'=q\nabla L$ and $\mathbb E\|G'\|^2=qM$. Smoothness: $\mathbb E L(w-\eta G')\le L-\eta q\|\nabla
L\|^2+\tfrac{H\eta^2}{2}qM$; the right side is least at the given $\eta$. (ii) Insert. (iii) Each of the $d$
coordinates is kept with probability $q$, and $\|g_q\|_0=qd$ always. All this bounds the progress of optimisation, not
generalisation, and it compares two *upper bounds*: no network need follow either.""",
    "example": r"""
Zeros put into a given input gradient: at $q=0.5$ the guarantee is half of the whole and the bound of $\rho_{\rm adv}$
a quarter, which is no longer one factor for both. And (i) breaks where the risk is steeper than the $H$ used: the step
overshoots and the risk rises.""",
}
