"""Statements and proofs that go beyond the papers, and the certificate they lean on, in Markdown with LaTeX."""

P1 = {
    "id": "P1",
    "title": "A max pool makes zeros, an average pool passes on those it gets",
    "latex": r"""
Let $u$ be the gradient that arrives at a pool's outputs, one number per window.

(i) Max pool: $\|\partial L/\partial x\|_0\le\|u\|_0\le$ number of windows, so the share of zeros is at least $1-$
windows/positions; $\ge 75\,\%$ for kernel 3, stride 2, padding 1 on an even map.

(ii) Average pool over windows of $k^2$: $\partial L/\partial x_i=\sum_{w\ni i}u_w/k^2$. It is zero where no window
with $u_w\neq0$ covers $i$, and else only by exact cancellation, for a null set of the values of $u$.""",
    "proof": r"""
(i) The gradient of a window goes to one index, and a window without gradient sends none. For kernel 3, stride 2,
padding 1 on $2h\times 2w$ there are $hw$ windows for $4hw$ positions. (ii) The sum is the chain rule. If some $u_w$ in
it is free, the sum vanishes on a hyperplane, and finitely many of them are a null set. So the average pool makes no
zeros, but zeros from above, as from a max pool or a neuron whose surrogate vanishes, come through wherever they fill
all windows around a position.""",
    "example": r"""
An average pool under a gradient without zeros: no zeros at all, where (i) would promise 75 %.""",
}
P2 = {
    "id": "P2",
    "title": "SEW identity",
    "latex": r"""
A SEW block with $g={\rm ADD}$ and identity shortcut, $out=x+F(x)$, has $$\frac{\partial L}{\partial
x}=(I+J_F^\top)\frac{\partial L}{\partial out};$$ where $J_F=0$ the support of the gradient passes through the block
unchanged.""",
    "proof": r"""
The chain rule. Sparsity inside the block is what $J_F^\top$ does to the gradient of the residual path; the shortcut
carries the gradient from above around it as it is.""",
    "example": r"""
With $g={\rm AND}$, $out=x\odot F(x)$, the shortcut is gated by the path's spikes and the identity fails.""",
}
P3 = {
    "id": "P3",
    "title": "Max and average pool are equally vulnerable to first order",
    "latex": r"""
For non-overlapping pooling and a linear read-out $f(x)=a\cdot{\rm pool}(x)$, at an $x$ without ties, $$\|\nabla
f\|_1=\|a\|_1\ \text{for both pools},$$ so both have the first-order $\rho_{\rm adv}=\varepsilon^2\|a\|_1^2$,
although $\|\nabla f\|_0$ differs by $k^2$. Only $\rho_{\rm rand}$ is smaller for the average, by $k^2$.""",
    "proof": r"""
Every position lies in one window. Max: the window's gradient $a_w$ sits on one position. Average: $a_w/k^2$ on each
of $k^2$ positions. Summing absolute values gives $|a_w|$ both times; summing squares gives $a_w^2$ and $a_w^2/k^2$.
The ratio of theorem 4.1 therefore calls the average pool $k^2$ times worse, for being *less* sensitive to noise.""",
    "example": r"""
With overlapping windows (kernel 3, stride 2, padding 1, as in the stem) gradients of neighbours cancel in the
average pool: its $\ell_1$ norm, and so its vulnerability, is *smaller*, while its ratio is larger still.""",
}
P4 = {
    "id": "P4",
    "title": "The deployed network is piecewise constant",
    "latex": r"""
If all layers before the first spiking layer are affine, and the logits depend on the input through the spikes of that
layer alone, then for almost every $x$ there is $r(x)>0$ such that every spike, hence $f_y$, is constant on
$\|x'-x\|_\infty<r(x)$: there $\rho_{\rm adv}=\rho_{\rm rand}=0$ and the ratio is $0/0$. One may take
$$r(x)=\min_{i,t}\frac{|h_i[t]-\theta|}{\|W_i\|_1\,\Lambda_i[t]},\qquad
\Lambda_i[t]=1+\lambda\,\Lambda_i[t-1]\,(1-s_i[t-1])\ \text{(hard reset)},$$ $\Lambda_i[t]=1+\lambda\Lambda_i[t-1]$
for a soft reset, $\Lambda_i[0]=0$.""",
    "proof": r"""
As long as no spike of the first layer has changed up to time $t-1$, $h_i[t]$ is an affine function of the input
whose recursion $h[t]=\lambda v[t-1]+a[t]$ forgets the past at a hard reset; a current moves by at most
$\varepsilon\|W_i\|_1$, so $h_i[t]$ moves by at most $\varepsilon\|W_i\|_1\Lambda_i[t]$ (a soft reset subtracts the
same $\theta s$ in both cases). For $\varepsilon<r(x)$ it stays on its side of $\theta$, by induction over $t$. What
lies behind reads these spikes and, by assumption, nothing else of the input. $r(x)>0$ unless some $h_i[t]=\theta$ with
$W_i\ne0$; for each of the finitely many spike patterns this is a hyperplane, a null set. Inside the radius theorem
4.1's $3\|g\|_1^2/\|g\|_2^2$, with the surrogate's $g\ne0$, is some number, and the measured ratio is $0/0$; beyond it
spikes move, and the ratio is what the jumps make it. Theorem 4.1 speaks of the smooth relaxation, where the gradient
*is* the surrogate, and of no deployed network.""",
    "example": r"""
A shortcut around the first spiking layer, ${\rm last}(z+{\rm IF}(z))$ with $z=Wx$: the spikes stay within $r(x)$, the
logits move with $z$. So does any other way around, such as a second branch with neurons of its own. The check follows
an input through the network, operation by operation, and names what carries it past the neuron.""",
}
O1 = {
    "id": "O1",
    "title": "Ratio bound at finite eps",
    "latex": r"""
Let $f$ be absolutely continuous on the segments $[x,x+\varepsilon\delta]$ with derivative $\nabla f\cdot\delta$
almost everywhere (kinks of max pools and ReLUs are allowed), $g=\nabla f(x)$, and
$$L(\delta)=\sup_{0<t\le1}\frac{|(\nabla f(x+t\varepsilon\delta)-g)\cdot\delta|}{t\varepsilon},\qquad L_{\rm
rms}^2=\mathbb E\,L(\delta)^2 .$$

(i) $|f(x+\varepsilon\delta)-f(x)-\varepsilon g\cdot\delta|\le\tfrac{\varepsilon^2}{2}L(\delta)$ for every
$\|\delta\|_\infty\le1$.

(ii) $\varepsilon\|g\|_1-\tfrac{\varepsilon^2}{2}L({\rm sign}\,g)\le\sqrt{\rho_{\rm
adv}}\le\varepsilon\|g\|_1+\tfrac{\varepsilon^2}{2}L^*$, with $L^*=\sup_\delta L(\delta)$, or $L(\delta^*)$ where a
maximiser $\delta^*$ exists.

(iii) $\big|\sqrt{\rho_{\rm rand}}-\tfrac{\varepsilon}{\sqrt3}\|g\|_2\big|\le\tfrac{\varepsilon^2}{2}L_{\rm rms}$.

(iv) With $\alpha_-=\tfrac{\varepsilon L({\rm sign}\,g)}{2\|g\|_1}$, $\alpha_+=\tfrac{\varepsilon L^*}{2\|g\|_1}$,
$\beta=\tfrac{\sqrt3\,\varepsilon L_{\rm rms}}{2\|g\|_2}<1$:
$$\Big(\frac{(1-\alpha_-)_+}{1+\beta}\Big)^2\le\frac{\rho_{\rm adv}}{\rho_{\rm
rand}}\Big/\frac{3\|g\|_1^2}{\|g\|_2^2}\le \Big(\frac{1+\alpha_+}{1-\beta}\Big)^2 .$$

(v) $\rho_{\rm adv}\le\max(f,1-f)^2$: the first-order value is too large as soon as
$\varepsilon\|g\|_1>\max(f,1-f)$.""",
    "proof": r"""
(i) The difference is $\varepsilon\int_0^1(\nabla f(x+t\varepsilon\delta)-g)\cdot\delta\,dt$, at most
$\varepsilon\int_0^1 t\varepsilon L(\delta)\,dt$. (ii) Left: insert $\delta={\rm sign}\,g$ in the supremum. Right:
$|g\cdot\delta|\le \|g\|_1$ and (i). (iii) Minkowski in $L^2$ of the noise:
$\big|\,\|f(x+\varepsilon\delta)-f(x)\|-\|\varepsilon g\cdot\delta\|\,\big|\le
\|\text{remainder}\|\le\tfrac{\varepsilon^2}{2}L_{\rm rms}$, and $\|g\cdot\delta\|=\|g\|_2/\sqrt3$. (iv) Divide and
square. (v) $f\in[0,1]$. An attack gives $\sqrt{\rho_{\rm adv}}$ from below, and (i) along its own direction bounds
what it found; the supremum over all $\delta$ stays out of reach of any measurement.""",
    "example": r"""
A hard step: the gradient of the surrogate is not the derivative of $f$, its line integral misses the change, and
(i) fails. The check measures exactly that integral.""",
}
O2 = {
    "id": "O2",
    "title": "Vulnerability follows the l1 norm, not the number of non-zeros",
    "latex": r"""
(i) $\sqrt{\rho_{\rm adv}}$ lies within $\tfrac{\varepsilon^2}{2}L$ of $\varepsilon\|g\|_1$ on both sides (O1

(ii)): to first order $\|g\|_1^2$ *is* the vulnerability.

(ii) $\|g\|_0$ alone bounds nothing: for every $d$, every $1\le k\le d$, every $\varepsilon\in(0,1]$ and every
$v\in(0,\tfrac14]$ there is $f$ with $\|g\|_0=k$ and $\rho_{\rm adv}=v$.

(iii) It enters with a size held fixed: $\|g\|_2^2\le\|g\|_1^2\le\|g\|_0\|g\|_2^2$ and
$\|g\|_1\le\|g\|_0\|g\|_\infty$; at entries of equal size $\rho_{\rm adv}\propto\|g\|_0^2$, quadratic and not
linear.""",
    "proof": r"""
(ii) $f(x')=\tfrac12+\tfrac{\sqrt v}{k\varepsilon}\sum_{i\le k}(x'_i-x_i)$, clipped to $[0,1]$: affine on the ball
because $\sqrt v\le\tfrac12$, with $\rho_{\rm adv}=(\varepsilon\|g\|_1)^2=v$. (iii) Cauchy-Schwarz on the support,
and $|g_i|\le\|g\|_\infty$.""",
    "example": r"""
Two affine functions: one non-zero with $\rho_{\rm adv}=\tfrac14$, and $d$ non-zeros with $\rho_{\rm adv}=10^{-6}$.
The sparser one is the more vulnerable.""",
}
O3 = {
    "id": "O3",
    "title": "Weight-gradient density from supports alone, also under train-mode BatchNorm",
    "latex": r"""
Let a layer be used over samples $n$, times $t$ (and positions $p$), and
$U=\{(i,j):\exists(n,t)\;\delta_i[n,t]\ne0\ne s_j[n,t]\}$ (for a convolution $(o,i,u)$ with $\delta_o[n,t,p]\ne0\ne
s_i[n,t,p+u]$). Then

(i) ${\rm supp}(\partial L/\partial W)\subseteq U$ and $|U|/|W|\le\rho_R\,\rho_C\le\rho_C=r$, whatever lies behind
the layer.

(ii) Given $s$ and the support of $\delta$, equality ${\rm supp}=U$ holds for all values of $\delta$ but a null set.

(iii) With BatchNorm in train mode over the batch between $z$ and the neuron, density of the *batch* gradient
$\le(1-S_B)\,r_B$, with $S_B$ the share of channels whose neurons get no gradient at any sample, time and position,
$r_B$ the share of channels that spike anywhere in the batch. The bound *per sample* fails there.""",
    "proof": r"""
(i) An entry is $\sum\delta_i s_j$; without a pair of non-zeros every term is 0. $U\subseteq R\times C$. (ii) For
$(i,j)\in U$ the entry is a linear form in the free values of $\delta_i$ with a coefficient $s_j\ne0$; it vanishes
on a hyperplane, and a finite union of hyperplanes is a null set. (iii) Train-mode BatchNorm is coordinatewise over
channels though not over samples: with upstream gradient $u_c$ over the batch,
$\delta_c=\tfrac{\gamma_c}{\sigma_c}(u_c-\overline{u_c}-\hat z_c\,\overline{u_c\hat z_c})$, which is 0 if
$u_c\equiv0$. So $R$ stays inside the channels whose neurons get some gradient. Per sample the two means bring in
other samples' gradients.""",
    "example": r"""
Two samples through train-mode BatchNorm, a loss that reads only the first: the second sends back a gradient though
its own neurons got none, and $(1-S)r=0$ for it.""",
}
O4 = {
    "id": "O4",
    "title": "In L2 the ratio does not see sparsity",
    "latex": r"""
For definitions A.1, A.2 with the $\ell_2$ ball in the place of $\ell_\infty$, to first order $$\frac{\rho_{\rm
adv}}{\rho_{\rm rand}}=d+2\qquad\text{for every }g\ne0 .$$""",
    "proof": r"""
$\sup_{\|\delta\|_2\le1}g\cdot\delta=\|g\|_2$. Uniform in the ball, $\|\delta\|$ has density $d\,r^{d-1}$, so
$\mathbb E\|\delta\|^2=\tfrac{d}{d+2}$ and, by symmetry, $\mathbb E\,\delta\delta^\top=\tfrac{1}{d+2}I$; hence
$\mathbb E(g\cdot\delta)^2= \|g\|_2^2/(d+2)$. Whatever theorem 4.1 says about sparsity, it says about the
$\ell_\infty$ ball.""",
    "example": r"""
Noise on the sphere instead of in the ball: $\mathbb E\,\delta\delta^\top=I/d$ and the ratio is $d$.""",
}
O5 = {
    "id": "O5",
    "title": "A surrogate gradient is in general not the gradient of any function",
    "latex": r"""
There are spiking networks, already with one spiking layer and a softmax, whose surrogate gradient field is not
almost everywhere the gradient of any locally Lipschitz function.""",
    "proof": r"""
Two inputs, two neurons at $T=1$, $s_i=H(x_i-1)$, logits $(v_1s_1+v_2s_2,\,0)$ with $v_1,v_2>0$, any surrogate
$\sigma>0$. The field is $F(x)=p'(v\cdot s(x))\,(v_1\sigma(x_1-1),\,v_2\sigma(x_2-1))$ with $p$ the logistic
function. Around a rectangle $[1-a,1+b]\times[y_1,y_2]$ with $1<y_1<y_2$, where $s_2=1$, the horizontal parts cancel
($F_1$ there depends on $x_1$ alone) and the vertical ones leave
$\big(p'(v_1+v_2)-p'(v_2)\big)\,v_2\int_{y_1}^{y_2}\sigma(x_2-1)\,dx_2\neq0$, for an open set of rectangles. A
locally Lipschitz function has zero circulation around almost every rectangle, because on almost every axis-parallel
line its gradient exists almost everywhere and integrates to its differences. So there is no potential for theorem
4.1 to be about.""",
    "example": r"""
The rectangle of the proof, as a triangle in the check: the circulation of the deployed network's field is far from
0, that of its relaxation is 0 up to quadrature.""",
}
O6 = {
    "id": "O6",
    "title": "Poisson coding is a smoothing, with an L1 certificate",
    "latex": r"""
Let $S\in\{0,1\}^{T\times d}$ have independent entries $S_{ti}\sim{\rm Bernoulli}(x_i)$, $h$ any classifier of spike
trains, and $p_c(x)=P(h(S)=c)$. For $x,x'\in[0,1]^d$ $$|p_c(x)-p_c(x')|\le{\rm
TV}(P_x,P_{x'})\le\min\Big(1-\prod_i(1-|x_i-x'_i|)^T,\ \sqrt{1-B^2}\Big),\qquad
B=\prod_i\big(\sqrt{x_ix'_i}+\sqrt{(1-x_i)(1-x'_i)}\big)^T .$$ If $p_A(x)\ge\underline p>\tfrac12$, class $A$ stays
the likeliest for every $x'$ with $$\|x-x'\|_1<1-(\tfrac32-\underline p)^{1/T}.$$""",
    "proof": r"""
Total variation bounds the change of the probability of any event. First bound: draw $S_{ti}=1[U_{ti}<x_i]$ and
$S'_{ti}=1[U_{ti}<x'_i]$ with the same uniform $U$; $P(S\ne S')=1-\prod(1-|x_i-x'_i|)^T$ bounds TV. Second: $B$ is
the Bhattacharyya coefficient of the two product laws, and ${\rm TV}^2\le1-B^2$ by Cauchy-Schwarz on $|\sqrt
P-\sqrt{P'}|\,|\sqrt P+\sqrt{P'}|$. Radius: $\prod(1-|x_i-x_i'|)\ge1-\|x-x'\|_1$ (Weierstrass), so TV
$\le1-(1-\|x-x'\|_1)^T<\underline p-\tfrac12$ and $p_A(x')>\tfrac12$. Since $p_c$ is a polynomial in $x$, the
smoothed network has a true gradient, with $|\partial_ip_c|\le T$: unlike the deployed one, theorem 4.1 can speak of
it.""",
    "example": r"""
A gain in front of the code, spikes with probability $\min(1,3x)$: the laws of two images lie up to three times
farther apart than the bounds, taken at $x$ and $x'$, allow.""",
}
C1 = {
    "id": "C1",
    "title": "Randomised smoothing with Gaussian noise",
    "latex": r"""
Let $p_A=P(h(x+\sigma N)=A)\ge\underline p>\tfrac12$, $N$ standard normal. The smoothed classifier
$\arg\max_cP(h(x'+\sigma N)=c)$ says $A$ for every $\|x'-x\|_2<\sigma\,\Phi^{-1}(\underline p)$. With $\underline p$
a Clopper-Pearson bound from $n$ draws, each image's certificate holds with confidence $1-\alpha$.""",
    "proof": r"""
Among all sets of probability $\underline p$ under $N(x,\sigma^2)$, the half-space orthogonal to $x'-x$ has the
least probability under $N(x',\sigma^2)$ (Neyman and Pearson), namely $\Phi(\Phi^{-1}(\underline
p)-\|x'-x\|/\sigma)$; it exceeds $\tfrac12$ iff $\|x'-x\|<\sigma\Phi^{-1}(\underline p)$. Nothing is asked of $h$:
spikes, resets and encoders are covered. Tight for a half-space, where the radius is the distance to the boundary.""",
    "example": r"""
A boundary that bends away: the smoothed classifier is certified *beyond* the distance at which the network itself
changes its mind. The certificate is the smoothed classifier's, not the network's.""",
}
